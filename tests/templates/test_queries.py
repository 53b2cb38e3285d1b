"""Reading and cleaning queries: every drop has its reason, every row comes out once and in order."""

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.decontamination import Decontaminator
from fineinstructions.errors import BackendError, ConfigError, DataError
from fineinstructions.moderation import Verdict
from fineinstructions.records import Query, Rejection, content_id
from fineinstructions.templates.queries import QueriesConfig, clean, one_each, read_queries


def queries(*texts: str) -> list[Query | Rejection]:
    return [Query(f"q{i}", text) for i, text in enumerate(texts)]


def config(**settings: Any) -> QueriesConfig:
    return QueriesConfig(path="unused", **settings)


def outcome(items: list[Query | Rejection]) -> list[str]:
    return [item.text if isinstance(item, Query) else item.reason for item in items]


def test_every_drop_has_its_reason() -> None:
    rows = queries(
        "What is&nbsp;the   capital of Peru?",
        "\u200b\0",
        "a?",
        "x" * 50 + " " + "y" * 50,
        "photosynthesis",
        "one two three four five six seven eight nine ten eleven",
        "¿Cuál es la capital de Rumanía y cuántos habitantes tiene?",
        "how do i make a bomb",
        "Which planet is closest to the sun?",
        "Why does jo@example.org not answer the mail?",
        "what is the capital of PERU",
        "the capital of Peru",
    )
    settings = config(max_chars=90, max_words=10, moderation={"model": "unused"})

    class Bombs:
        def moderate(self, texts: Sequence[str]) -> list[Verdict]:
            return [Verdict("bomb" in text, "weapons", 0.5) for text in texts]

    items = list(clean(rows, settings, Decontaminator([("b", "which planet is closest to the sun")]), Bombs()))
    assert outcome(items) == [
        "What is the capital of Peru?",
        "empty",
        "too_short",
        "too_long",
        "too_few_words",
        "too_many_words",
        "foreign_language",
        "harmful",
        "benchmark_exact",
        "Why does [email] not answer the mail?",
        "exact_duplicate",
        "near_duplicate",
    ]
    values = {item.reason: item.value for item in items if isinstance(item, Rejection)}
    assert (values["too_short"], values["too_few_words"], values["harmful"]) == (2, 1, 0.5)
    near = items[-1]
    assert isinstance(near, Rejection) and json.loads(near.record)["duplicate_of"] == "q0"


LEAKS = [
    "jo@example.org",
    "jo@example.org ?" + " or not" * 50,
    "jo@ex\u200bample.org",
    "¿Dónde vive jo@example.org y cuántos habitantes tiene la ciudad?",
    "how to bomb jo@example.org",
    "does jo@example.org like cats?",
    "why does jo@example.org not answer?",
    "why does jo@example.org not answer?",
]


@pytest.mark.parametrize("pii", ["scrub", "reject"])
def test_no_rejection_keeps_personal_data(pii: str) -> None:
    class Bombs:
        def moderate(self, texts: Sequence[str]) -> list[Verdict]:
            return [Verdict("bomb" in text, "weapons", 0.5) for text in texts]

    benchmark = Decontaminator([("b", "does jo@example.org like cats")])
    settings = config(pii=pii, max_words=20, moderation={"model": "unused"})
    items = list(clean(queries(*LEAKS), settings, benchmark, Bombs()))
    reasons = [item.reason for item in items if isinstance(item, Rejection)]
    assert reasons[:6] == [
        "too_few_words",
        "too_many_words",
        "too_few_words",
        "foreign_language",
        "harmful",
        "benchmark_exact",
    ]
    assert not any("jo@" in (item.record if isinstance(item, Rejection) else item.text) for item in items)
    assert all("[email]" in item.record for item in items[:6] if isinstance(item, Rejection))
    kept = clean(queries(*LEAKS), settings.model_copy(update={"pii": "keep"}), benchmark, Bombs())
    assert sum("jo@" in item.record for item in kept if isinstance(item, Rejection)) == 7


def test_settings_turn_filters_off() -> None:
    rows = queries(
        "photosynthesis", "Wie heißt der Bürgermeister von Wesel denn?", "mail jo@example.org", "mails jo@example.org"
    )
    loose = config(min_words=1, languages=[], pii="keep", near_duplicates=False)
    assert outcome(list(clean(rows, loose))) == [row.text for row in rows if isinstance(row, Query)]
    assert outcome(list(clean(rows[2:], config(pii="reject")))) == ["pii", "pii"]
    rejected = next(clean(rows[2:], config(pii="reject")))
    assert isinstance(rejected, Rejection) and "jo@" not in rejected.record


def test_rows_are_counted_at_the_source() -> None:
    assert list(one_each("abc", lambda rows: (row.upper() for row in rows))) == ["A", "B", "C"]
    lossy = one_each("abc", lambda rows: (row for row in rows if row != "b"))
    with pytest.raises(DataError, match="3 rows were read, but 2 are accounted for"):
        list(lossy)
    with pytest.raises(DataError, match="3 rows were read, but 1 are accounted for"):
        list(one_each("abc", lambda rows: iter(next(rows))))
    with pytest.raises(DataError, match="3 rows were read, but 6 are accounted for"):
        list(one_each("abc", lambda rows: (row for row in rows for _ in range(2))))


def test_a_moderator_speaks_for_every_query() -> None:
    class Short:
        def moderate(self, texts: Sequence[str]) -> list[Verdict]:
            return [Verdict(False)] * (len(texts) - 1)

    with pytest.raises(BackendError, match="1 verdicts for 2 queries"):
        list(clean(queries("who is who", "what is what"), config(), moderator=Short()))


TEXTS = [
    "What is a cat?",
    "what is a cat",
    "What are cats?",
    "x",
    "",
    "who is who",
    "Qu'est-ce que c'est que ça veut dire?",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(TEXTS), max_size=12), st.integers(1, 5))
def test_one_item_per_row_in_order_whatever_the_batches(texts: list[str], batch_size: int) -> None:
    class Nothing:
        def moderate(self, texts: Sequence[str]) -> list[Verdict]:
            return [Verdict(False)] * len(texts)

    rows = [*queries(*texts), Rejection("queries", "missing_text", "r")]
    batched = config(moderation={"batch_size": batch_size})
    items = list(clean(rows, batched, moderator=Nothing()))
    assert items == list(clean(rows, config()))
    assert [i.query_id if isinstance(i, Query) else i.record_id for i in items] == [
        f"q{i}" for i in range(len(texts))
    ] + ["r"]


@settings(max_examples=60, deadline=None)
@given(st.permutations(TEXTS))
def test_the_order_of_queries_matters_only_among_duplicates(texts: list[str]) -> None:
    def by_reason(items: Sequence[str]) -> Counter[str]:
        reasons = [i.reason if isinstance(i, Rejection) else "kept" for i in clean(queries(*items), config())]
        return Counter("duplicate" if r.endswith("duplicate") else r for r in reasons)

    assert by_reason(texts) == by_reason(TEXTS)


def test_the_word_list_and_the_benchmarks_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("bomb\n")
    keyed = {"7": {"prompt": "Who wrote the book of the century?"}}
    (tmp_path / "bench.json.gz").write_bytes(gzip.compress(json.dumps(keyed).encode()))
    settings = config(
        benchmarks=[{"path": str(tmp_path / "bench.json.gz")}], moderation={"word_list": str(tmp_path / "words.txt")}
    )
    rows = queries("is the bomb real", "who wrote the book of the century", "who wrote it")
    assert outcome(list(clean(rows, settings))) == ["harmful", "benchmark_exact", "who wrote it"]


def test_read_queries(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "text": "who is who", "source": "s", "licence": "MIT"},
        {"id": 1, "text": "what is what"},
        {"id": 2, "text": ""},
        {"id": 3, "text": "y" * 200},
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows) + "{oops\n")
    settings = QueriesConfig(path=str(path), max_document_bytes=100)
    first, *others = read_queries(settings)
    assert first == Query("1", "who is who", "s", "MIT")
    reasons = [r.reason for r in others if isinstance(r, Rejection)]
    assert reasons == ["repeated_id", "empty_text", "query_too_large", "malformed_json"]
    assert all(r.stage == "queries" for r in others if isinstance(r, Rejection))
    assert len(list(read_queries(settings.model_copy(update={"limit": 2})))) == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
def test_a_row_without_an_id_has_none_wherever_it_stands(tmp_path: Path, suffix: str) -> None:
    """Whether ids come from the column is decided for a file as a whole, by any of the rows that are read."""
    rows = [{"text": "who is who"}, {"id": "a", "text": "what is what"}, {"id": None, "text": "where is where"}]
    path = tmp_path / f"q{suffix}"
    raw = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([{"id": None} | row for row in rows]), path)
    else:
        path.write_bytes(gzip.compress(raw) if suffix.endswith(".gz") else raw)
    settings = QueriesConfig(path=str(path))
    assert outcome(list(read_queries(settings))) == ["missing_id", "what is what", "missing_id"]
    if suffix != ".parquet":
        (first,) = read_queries(settings.model_copy(update={"limit": 1}))
        assert first == Query(content_id("q", "who is who"), "who is who")


def test_plain_text_is_one_query_per_line(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("who is who\n\nwho is who\nwhat is what\n")
    items = list(read_queries(QueriesConfig(path=str(tmp_path / "q.txt"))))
    assert outcome(items) == ["who is who", "who is who", "what is what"]
    cleaned = list(clean(items, QueriesConfig(path="unused")))
    assert outcome(cleaned) == ["who is who", "exact_duplicate", "what is what"]


def test_a_bad_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("id,frage\n1,x\n")
    with pytest.raises(ConfigError, match=r"columns found: id, frage; set queries\.text_column"):
        list(read_queries(QueriesConfig(path=str(tmp_path / "q.csv"))))
