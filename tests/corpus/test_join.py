"""Documents joined with their pairs, whole or shortened: exact tokens, the beginning of each, whatever a token is."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.backends.tokenizer import ByteTokenizer, PieceTokenizer, Tokenizer, TokenizerFacts
from fineinstructions.corpus.arms import Share, Source
from fineinstructions.corpus.budget import Offer, spend
from fineinstructions.corpus.export import ExportConfig
from fineinstructions.corpus.join import largest, shortened_rows
from fineinstructions.corpus_rows import UNTOKENIZED
from fineinstructions.corpus_sharing import CUT, SameDocuments, cut_arms
from fineinstructions.pair_text import pair_text
from fineinstructions.runs import StageAccount
from fineinstructions.seeded_order import row_keys

COSTLY = 7
"""Most tokens of one character of `odd_tokenizer`."""
ARMS = {
    "standard": {"documents": 1.0},
    "fineinstructions": {"pairs": 1.0},
    "ipt": {"documents_with_pairs": 1.0},
    "control": {"documents": 0.9, "pairs": 0.1},
    "all": {"documents": 1.0, "pairs": 2.0, "documents_with_pairs": 1.0},
}
TEXTS = st.text(st.sampled_from("ab é☂. \n"), max_size=60)
DOCUMENTS = st.lists(
    st.tuples(st.text(st.sampled_from("ab é☂. \n"), max_size=400), st.lists(st.tuples(TEXTS, TEXTS), max_size=4)),
    min_size=1,
    max_size=12,
)


def odd_tokenizer() -> Tokenizer:
    """Runs of one letter are a token, and an umbrella is seven: neither even steps nor one token a character."""

    def encode(text: str) -> list[int]:
        runs = (n for n, letter in enumerate(text) if n == 0 or letter != text[n - 1] or letter in "☂.")
        return [0 for n in runs for _ in range(COSTLY if text[n] == "☂" else 1)]

    facts = TokenizerFacts("hf", "", 3, bos_id=1, eos_id=2)
    return PieceTokenizer(facts, encode, lambda texts: [np.array(encode(text), np.uint32) for text in texts])


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {"bytes": ByteTokenizer, "odd": odd_tokenizer}
Written = Sequence[tuple[str, Sequence[tuple[str, str]]]]


def table_of(rows: Sequence[dict[str, str | None]]) -> pa.Table:
    blank = dict.fromkeys(UNTOKENIZED.names, "")
    return pa.Table.from_pylist([blank | row for row in rows], schema=UNTOKENIZED)


def document_rows(written: Written) -> list[dict[str, str | None]]:
    return [
        {"id": f"d{n}", "document_id": f"d{n}", "text": text, "instruction": None, "answer": None, "licence": "CC0"}
        for n, (text, _) in enumerate(written)
    ]


def pair_rows(written: Written) -> list[dict[str, str | None]]:
    return [
        {
            **{"id": f"p{n}-{i}", "document_id": f"d{n}", "text": pair_text(*pair), "template_licence": "MIT"},
            **{"instruction": pair[0], "answer": pair[1], "models": "{}"},
        }
        for n, (_, pairs) in enumerate(written)
        for i, pair in enumerate(pairs)
    ]


def source_of(name: str, rows: Sequence[dict[str, str | None]], tokenizer: Tokenizer) -> Source:
    tokens = tokenizer.row_tokens([str(row["text"]) for row in rows])
    keys = row_keys(0, CUT, [str(row["document_id"]) for row in rows])
    tables = [table_of(rows[start : start + 5]) for start in range(0, len(rows), 5)]
    live = np.ones(len(rows), np.bool_)
    return Source(name, lambda: iter(tables), tokens, keys, live, live.copy() if name == "documents" else live)


def chosen(written: Written, tokenizer: Tokenizer) -> tuple[dict[str, Source], np.ndarray]:
    """Sources with the marks that the budget sets, and the tokens of every document's pairs."""
    documents = source_of("documents", document_rows(written), tokenizer)
    pairs = source_of("pairs", pair_rows(written), tokenizer)
    ids, place = [str(row["id"]) for row in pair_rows(written)], 0
    wanted = np.zeros(len(written), np.int64)
    for n, (_, of_document) in enumerate(written):
        stop = place + len(of_document)
        offer = Offer(f"d{n}", int(documents.tokens[n]), tuple(ids[place:stop]), tuple(pairs.tokens[place:stop]))
        entry, taken = next(spend([offer], 0, carries=False))
        pairs.live[place:stop], documents.live[n], wanted[n] = taken, bool(entry.chosen_pairs), entry.emitted_tokens
        place = stop
    return {"documents": documents, "pairs": pairs}, wanted


def rows_of(shares: Sequence[Share]) -> list[dict[str, object]]:
    return [row for share in shares for table in share.tables() for row in table.to_pylist()]


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=20)
@given(written=DOCUMENTS)
def test_all_arms_have_the_same_documents_and_tokens(kind: str, written: Written) -> None:
    tokenizer = TOKENIZERS[kind]()
    sources, wanted = chosen(written, tokenizer)
    with TemporaryDirectory() as folder:
        config = ExportConfig(arms=ARMS, documents="same")
        shares = SameDocuments(config, sources, wanted, tokenizer, Path(folder)).shares()
        account = StageAccount()
        rejected = list(cut_arms(shares, account, has_same_documents=True))
        have_pairs = {f"d{n}" for n in np.flatnonzero(wanted)}
        for arm, taken in shares.items():
            rows = rows_of(taken)
            assert {row["document_id"] for row in rows} == have_pairs, arm
            counted = tokenizer.row_tokens([str(row["text"]) for row in rows]).tolist()
            assert [row["num_tokens"] for row in rows] == counted, arm
            assert sum(share.num_tokens for share in taken) == sum(counted)
            assert 0 <= wanted.sum() - sum(counted) < COSTLY * len(taken), arm
            texts = [str(row["text"]) for row in rows if row["id"] == row["document_id"]]
            originals = [str(written[int(str(row["id"])[1:])][0]) for row in rows if row["id"] == row["document_id"]]
            heads = [text.partition("\n\nInstruction:")[0] for text in texts]
            assert all(whole.startswith(head) for whole, head in zip(originals, heads, strict=True)), arm
        assert account.num_in == account.num_out + len(rejected)
        left_out = Counter(json.loads(r.record)["arm"] for r in rejected if r.reason == "no_pairs")
        assert left_out["standard"] == left_out["ipt"] == len(written) - len(have_pairs)


def test_pairs_take_at_most_half_of_a_row_and_stand_behind_the_beginning() -> None:
    pairs = [("Why?", "x" * 40), ("How?", "y" * 60), ("Who?", "z" * 10)]
    written = [("A long document. " * 50, pairs), ("One pair only. " * 50, pairs[:1])]
    sources, wanted = chosen(written, ByteTokenizer())
    found = list(
        shortened_rows(
            sources["documents"].tables(),
            sources["pairs"].live_tables(),
            wanted,
            sources["documents"].tokens,
            np.ones(2, np.bool_),
            ByteTokenizer(),
            seed=0,
        )
    )
    first, second = (item.row for item in found)
    head, *behind = first.text.split("\n\nInstruction:")
    assert written[0][0].startswith(head)
    assert 1 <= len(behind) < 3
    assert sum(len(pair_text(*pair)) + 2 for pair in pairs if pair[1] in first.text) <= wanted[0] / 2
    assert first.template_licence == "MIT"
    assert (second.template_licence, second.text in written[1][0]) == ("", True)
    assert [item.is_shortened for item in found] == [True, True]
    assert [row.num_tokens for row in (first, second)] == wanted.tolist()


@given(st.integers(0, 2000), st.integers(-5, 2005), st.integers(0, 3000))
def test_the_largest_that_fits_is_found_from_any_guess(most: int, border: int, guess: int) -> None:
    asked: list[int] = []

    def fits(number: int) -> bool:
        asked.append(number)
        return number <= border

    assert largest(most, fits, guess) == max(0, min(most, border))
    assert all(1 <= number <= most for number in asked)
    assert len(asked) <= 24


def test_a_whole_document_is_not_called_shortened() -> None:
    tables: Iterator[pa.Table] = iter([table_of(document_rows([("Rain.", [])]))])
    own = np.array([7])
    (found,) = shortened_rows(tables, (), own, own, np.ones(1, np.bool_), ByteTokenizer(), seed=0)
    assert (found.row.text, found.row.num_tokens, found.is_shortened) == ("Rain.", 7, False)
