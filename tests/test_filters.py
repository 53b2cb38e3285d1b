"""Clean-up, language, duplicates, personal data, benchmark overlap and moderation."""

import gzip
import json
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasketch import MinHash, MinHashLSH
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.decontamination import BenchmarkConfig, Decontaminator
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.filters import (
    ExactDuplicates,
    NearDuplicates,
    clean_text,
    detect_language,
    foreign_probability,
    question_key,
    shingles,
    text_key,
    words,
)
from fineinstructions.moderation import ModerationEndpoint, WordList
from fineinstructions.pii import is_iban, luhn, scrub


@given(st.text())
def test_clean_up_is_done_once(text: str) -> None:
    cleaned = clean_text(text.replace("&", "+"))  # an entity may decode to an entity
    assert clean_text(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a \t b  ", "a b"),
        ("line one  \n  line two", "line one\nline two"),
        ("cafe\u0301", "café"),
        ("a\0b\x1b[0m", "ab[0m"),
        ("AT&amp;T &lt;b&gt; &#39;x&#39;", "AT&T <b> 'x'"),
        ("a\u2028b\r\nc\rd", "a\nb\nc\nd"),
        ("zero\u200bwidth\ufeff and\u00a0no-break", "zerowidth and no-break"),
        ("family \U0001f469\u200d\U0001f467", "family \U0001f469\u200d\U0001f467"),
        ("\u202eevil\u202c", "evil"),
    ],
)
def test_clean_up(text: str, expected: str) -> None:
    assert clean_text(text) == expected


ENGLISH = [
    "who played danny on young and the restless",
    "napapaloob meaning",
    "tikz node distance",
    "What does the phrase 'je ne sais quoi' mean in French?",
    "python list comprehension",
    "capital de facto cabo verde",
    "Taj Mahal Agra Uttar Pradesh India",
    "C++ std::vector<int> push_back",
]
FOREIGN = [
    "Wie heißt der Bürgermeister von Wesel und seit wann ist er im Amt?",
    "¿Cuál es la capital de Rumanía y cuántos habitantes tiene?",
    "Quels sont les symptômes de la grippe chez les enfants ?",
    "Quali sono i sintomi più comuni dell'influenza nei bambini?",
    "Jakie są objawy grypy u dzieci i jak ją leczyć?",
    "Какие симптомы гриппа у детей?",
    "子供のインフルエンザの症状は何ですか",
    "儿童流感有哪些症状",
    "ما هي أعراض الإنفلونزا عند الأطفال",
    "Çocuklarda grip belirtileri nelerdir ve nasıl tedavi edilir?",
    "Vilka är de vanligaste symptomen på influensa hos barn?",
    "Quais são os sintomas mais comuns da gripe em crianças?",
]


@pytest.mark.parametrize("text", ENGLISH)
def test_english_and_nameless_queries_stay(text: str) -> None:
    assert foreign_probability(text, ("en",)) < 0.9


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_queries_are_recognised(text: str) -> None:
    assert foreign_probability(text, ("en",)) >= 0.9
    assert foreign_probability(text, ("en", detect_language(text)[0])) < 0.9


@given(st.text(), st.text())
def test_equal_keys_only_for_equal_words(first: str, second: str) -> None:
    exact = ExactDuplicates()
    assert not exact.is_repeat(first)
    assert exact.is_repeat(f"  {first.upper().lower()}?! ") == (text_key(first.upper().lower()) == text_key(first))
    if text_key(first) == text_key(second):
        assert words(first) == words(second)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("what are the official languages of the eu?", "What is the official languages of the EU?", True),
        ("Fancy Chapter Heading", "Fancy chapter headings", True),
        ("What is the largest city in Poland?", "largest city of Poland", True),
        ("population of France in 2010", "population of France in 2011", False),
        ("who is the president of France", "who was the president of France", False),
        ("train from London", "train to London", False),
        ("is it safe to eat raw eggs", "is it not safe to eat raw eggs", False),
        ("where was he born", "when was he born", False),
        ("what is the", "what are", False),
    ],
)
def test_short_questions_repeat_when_their_content_words_do(first: str, second: str, same: bool) -> None:
    assert (question_key(first) == question_key(second)) == same
    near = NearDuplicates()
    assert near.find(first, "1") is None
    assert near.find(second, "2") == (("1", 1.0) if same else None)


def long_texts(seed: int) -> list[list[str]]:
    """Texts of 60 to 120 words, and copies of each with a growing number of words changed."""
    rng = random.Random(seed)
    vocabulary = [f"w{i}" for i in range(2000)]
    texts = []
    for _ in range(60):
        base = rng.choices(vocabulary, k=rng.randint(60, 120))
        texts.append(base)
        for changes in (1, 2, 4, 8, 16):
            copy = list(base)
            for position in rng.sample(range(len(copy)), changes):
                copy[position] = rng.choice(vocabulary)
            texts.append(copy)
    rng.shuffle(texts)
    return texts


def test_near_duplicates_agree_with_datasketch_and_the_true_similarity() -> None:
    """Away from the threshold we are right; near it we err no more often than the reference."""
    threshold = 0.7
    near, lsh = NearDuplicates(threshold, short_words=5), MinHashLSH(threshold=threshold, num_perm=128)
    kept: dict[str, set[str]] = {}
    sketches: dict[str, MinHash] = {}
    clear, our_errors, their_errors = 0, 0, 0
    for number, tokens in enumerate(long_texts(3)):
        runs = set(shingles(tokens))
        truth = max((len(runs & k) / len(runs | k) for k in kept.values()), default=0.0)
        sketch = MinHash(num_perm=128, seed=1)
        sketch.update_batch([r.encode() for r in runs])
        theirs = any(sketch.jaccard(sketches[name]) >= threshold for name in lsh.query(sketch))
        ours = near.find(" ".join(tokens), str(number)) is not None
        if abs(truth - threshold) > 0.12:
            assert ours == (truth >= threshold), (number, truth)
            clear += 1
        our_errors += ours != (truth >= threshold)
        their_errors += theirs != (truth >= threshold)
        if not ours:
            kept[str(number)] = runs
            sketches[str(number)] = sketch
            lsh.insert(str(number), sketch)
    assert clear > 200
    assert our_errors <= their_errors + 3 and their_errors < 0.1 * 360


def test_near_duplicates_refuse_bad_settings() -> None:
    with pytest.raises(ValueError, match="threshold"):
        NearDuplicates(threshold=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jo.doe+x@mail.example.co.uk now", "write to [email] now"),
        ("ping 8.8.8.8 and 2001:4860:4860::8888", "ping [ip] and [ip]"),
        ("set 192.168.0.1, 127.0.0.1, 255.255.255.0 and ::1", "set 192.168.0.1, 127.0.0.1, 255.255.255.0 and ::1"),
        ("version 300.1.2.3 at 12:30:45", "version 300.1.2.3 at 12:30:45"),
        ("call +44 20 7946 0958 or (415) 555-0132 or 415-555-0132", "call [phone] or [phone] or [phone]"),
        ("card 4111-1111-1111-1111 not 4111-1111-1111-1112", "card [card] not 4111-1111-1111-1112"),
        ("IBAN GB82 WEST 1234 5698 7654 32.", "IBAN [iban]."),
        ("postgres://jo:s3cr3t@db.example.org/x", "postgres://[credentials]@db.example.org/x"),
        ("in 2010-2020 it grew 1,234,567 to 3.14159265358979", "in 2010-2020 it grew 1,234,567 to 3.14159265358979"),
        ("ISBN 978-3-16-148410-0 and 10.1000/182", "ISBN 978-3-16-148410-0 and 10.1000/182"),
        ("1 2 3 4 5 6 7 8 9 10 11 12", "1 2 3 4 5 6 7 8 9 10 11 12"),
        ("std::vector @property a@b", "std::vector @property a@b"),
    ],
)
def test_scrub(text: str, expected: str) -> None:
    assert scrub(text)[0] == expected


@given(st.text(st.sampled_from("ab19 .@:/+-()[]"), max_size=60))
def test_scrubbing_twice_changes_nothing(text: str) -> None:
    once, _ = scrub(text)
    assert scrub(once) == (once, ())


@given(st.text("0123456789", min_size=2, max_size=19))
def test_exactly_one_check_digit_fits(digits: str) -> None:
    assert sum(luhn(digits[:-1] + d) for d in "0123456789") == 1


@given(st.integers(0, 10**18 - 1))
def test_iban_check_digits_are_unique(account: int) -> None:
    assert sum(is_iban(f"DE{check:02d}{account:018d}") for check in range(2, 99)) == 1


LONG_ITEM = (
    "A farmer keeps seventeen sheep and all but nine of them die in the cold winter so how many are left alive today"
)


def bench(*texts: str) -> Decontaminator:
    return Decontaminator([(f"b:{i}", text) for i, text in enumerate(texts)])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("What is the capital of Peru?", "exact"),
        ("what is the CAPITAL of peru", "exact"),
        ("Tell me: what is the capital of Peru? And of Chile?", None),
        (LONG_ITEM + "? Think step by step.", "13_gram"),
        ("all but nine of them die in the cold winter", "8_gram"),
        ("all but nine of them die in the evening when the moon is up and the tide is high and low", None),
        ("", None),
        ("!!", None),
    ],
)
def test_overlap(text: str, kind: str | None) -> None:
    found = bench("What is the capital of Peru?", LONG_ITEM).find(text)
    assert (found.kind if found else None) == kind


def test_an_item_quoted_inside_a_long_text_is_found() -> None:
    item = "Why is the sky blue during the day but red at dusk"  # 11 words: too short for a 13-gram
    filler = " ".join(f"filler{i}" for i in range(500))
    found = bench(item).find(f"{filler} {item} {filler}")
    assert found is not None and (found.kind, found.share, found.item) == ("8_gram", 1.0, "b:0")


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=30), min_size=1, max_size=4), st.data())
def test_overlap_is_what_the_definition_says(items: list[list[str]], data: st.DataObject) -> None:
    text = data.draw(st.lists(st.sampled_from("abc"), max_size=40))

    def grams(tokens: list[str], size: int) -> set[tuple[str, ...]]:
        return {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}

    share = 0.0
    for item in items:
        mine, theirs = grams(text, 8), grams(item, 8)
        if mine and theirs:
            share = max(share, len(mine & theirs) / len(mine), len(mine & theirs) / len(theirs))
    expected = None
    if text in items:
        expected = "exact"
    elif any(grams(text, 13) & grams(item, 13) for item in items):
        expected = "13_gram"
    elif share >= 0.5:
        expected = "8_gram"
    found = bench(*[" ".join(item) for item in items]).find(" ".join(text))
    assert (found.kind if found else None) == expected
    if found and found.kind != "exact":
        assert np.isclose(found.share, share)


def test_benchmarks_come_in_any_format(tmp_path: Path) -> None:
    keyed = {"0": {"prompt": "alpha one", "target": ["no"]}, "1": {"prompt": "alpha two", "context": None}}
    (tmp_path / "mixeval.json.gz").write_bytes(gzip.compress(json.dumps(keyed).encode()))
    turns = {"question_id": 1, "turns": ["beta one", "beta two"]}
    dialogue = {"task": "GR", "history": [{"user": "gamma one", "bot": "no"}, {"user": "gamma two", "bot": "no"}]}
    (tmp_path / "dialogues.jsonl").write_text(f"{json.dumps(turns)}\n{json.dumps(dialogue)}\n")
    table = pa.table({"instruction": ["delta one"], "output": ["no"], "extra": [[{"question": "delta two"}]]})
    pq.write_table(table, tmp_path / "alpaca.parquet")
    (tmp_path / "lines.txt").write_text("epsilon one\nepsilon two\n")
    (tmp_path / "table.csv").write_text("question,answer\nzeta one,no\nzeta two,no\n")
    found = Decontaminator.from_files([BenchmarkConfig(path=str(tmp_path))])
    for name in ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]:
        assert found.find(f"{name} one") and found.find(f"{name} two")
    assert found.find("no") is None
    assert found.num_items == 12
    answers = Decontaminator.from_files([BenchmarkConfig(path=f"{tmp_path}/dialogues.jsonl", columns=["bot"])])
    assert answers.find("no") and not answers.find("gamma one")


def test_only_some_rows_of_a_benchmark_are_held_out(tmp_path: Path) -> None:
    rows = [{"question": "alpha one", "split": "val"}, {"question": "alpha two", "split": "train"}]
    path = tmp_path / "b.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = Decontaminator.from_files([BenchmarkConfig(path=str(path), where={"split": "val"})])
    assert (found.num_items, bool(found.find("alpha one")), found.find("alpha two")) == (1, True, None)
    with pytest.raises(ConfigError, match=r"b\.jsonl:1: has no column 'fold'; see where"):
        Decontaminator.from_files([BenchmarkConfig(path=str(path), where={"fold": 1})])
    with pytest.raises(ConfigError, match="of the rows that where chooses"):
        Decontaminator.from_files([BenchmarkConfig(path=str(path), where={"split": "none"})])


def test_a_benchmark_without_the_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"aufgabe": "x"}\n')
    with pytest.raises(ConfigError, match=r"b\.jsonl: no text under any of prompt, instruction"):
        Decontaminator.from_files([BenchmarkConfig(path=str(tmp_path / "b.jsonl"))])
    (tmp_path / "c.jsonl").write_text('{"prompt": "x"}\n{oops\n')
    with pytest.raises(ConfigError, match=r"c\.jsonl:2: malformed_json"):
        Decontaminator.from_files([BenchmarkConfig(path=str(tmp_path / "c.jsonl"))])
    with pytest.raises(ConfigError, match=r"queries\.benchmarks"):
        Decontaminator.from_files([BenchmarkConfig(path=str(tmp_path / "absent.jsonl"))])


def test_word_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# comment\nbad   thing\nC++ bomb\n\n", encoding="utf-8")
    moderator = WordList.from_file(tmp_path / "list.txt")
    verdicts = moderator.moderate(["a BAD\nthing.", "badthing", "a c++ bomb", "comment"])
    assert [v.is_flagged for v in verdicts] == [True, False, True, False]
    assert verdicts[2].category == "c++ bomb"
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="empty"):
        WordList.from_file(tmp_path / "list.txt")
    with pytest.raises(ConfigError, match="cannot be read"):
        WordList.from_file(tmp_path / "absent.txt")


class _Endpoint(BaseHTTPRequestHandler):
    """A moderation server that flags texts with the word "harm", after as many refusals as it is told to give."""

    refusals: list[int] = []  # noqa: RUF012
    requests: list[Any] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append((self.path, body))
        status = self.refusals.pop() if self.refusals else 200
        results = [
            {"flagged": "harm" in t, "categories": {}, "category_scores": {"violence": 0.9 if "harm" in t else 0.1}}
            for t in body["input"]
        ]
        answer = {"id": "m", "model": body["model"], "results": results}
        refusal = {"error": {"message": f"no entry for {self.headers['Authorization']}"}}
        raw = json.dumps(answer if status == 200 else refusal).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    _Endpoint.refusals, _Endpoint.requests = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Endpoint)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()
    thread.join()


def test_moderation_endpoint(endpoint: str) -> None:
    moderator = ModerationEndpoint("judge", endpoint)
    _Endpoint.refusals = [503, 429]
    verdicts = moderator.moderate(["some harm", "none"])
    assert [(v.is_flagged, v.category, v.score) for v in verdicts] == [
        (True, "violence", 0.9),
        (False, "violence", 0.1),
    ]
    assert len(_Endpoint.requests) == 3
    assert _Endpoint.requests[0] == ("/v1/moderations", {"input": ["some harm", "none"], "model": "judge"})


def test_a_moderation_endpoint_that_fails_is_never_a_pass(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _Endpoint.refusals = [401]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown")
    with pytest.raises(BackendError, match="status 401") as caught:
        ModerationEndpoint("judge", endpoint).moderate(["x"])
    assert not caught.value.retryable
    assert "no entry for Bearer ***" in str(caught.value)
    start = time.monotonic()
    with pytest.raises(BackendError, match="no answer") as caught:
        ModerationEndpoint("judge", "http://127.0.0.1:9/v1", max_retries=0).moderate(["x"])
    assert caught.value.retryable and time.monotonic() - start < 10


def test_a_moderation_endpoint_needs_a_key() -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        ModerationEndpoint("judge")
