"""Rendered pairs: the paper's format to the byte, and views that hold the same two texts, whatever these are."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.corpus.render import View, view_columns, with_pairs
from fineinstructions.pair_text import pair_text

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), max_size=6)


def viewed(pairs: list[tuple[str, str]], view: View) -> list[dict[str, Any]]:
    columns = {"instruction": [i for i, _ in pairs], "answer": [a for _, a in pairs]}
    table = pa.table(columns, pa.schema([("instruction", pa.string()), ("answer", pa.string())]))
    rows: list[dict[str, Any]] = view_columns(table, view).to_pylist()
    return rows


def test_the_format_is_the_papers() -> None:
    assert pair_text("What is rain?", "Water.") == "Instruction: What is rain?\n\nAnswer: Water."
    assert viewed([("What is rain?", "Water.")], "text") == [{"text": "Instruction: What is rain?\n\nAnswer: Water."}]


@pytest.mark.parametrize(
    ("view", "row"),
    [
        ("messages", {"messages": [{"role": "user", "content": "Q {x}"}, {"role": "assistant", "content": "A\n"}]}),
        ("prompt_completion", {"prompt": "Instruction: Q {x}\n\nAnswer:", "completion": " A\n"}),
        ("alpaca", {"instruction": "Q {x}", "input": "", "output": "A\n"}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "Q {x}"}, {"from": "gpt", "value": "A\n"}]}),
    ],
)
def test_views(view: View, row: dict[str, Any]) -> None:
    assert viewed([("Q {x}", "A\n")], view) == [row]


@given(PAIRS)
def test_views_keep_both_texts_and_the_order(pairs: list[tuple[str, str]]) -> None:
    assert [r["text"] for r in viewed(pairs, "text")] == [pair_text(*pair) for pair in pairs]
    assert [r["prompt"] + r["completion"] for r in viewed(pairs, "prompt_completion")] == [
        pair_text(*pair) for pair in pairs
    ]
    assert [tuple(m["content"] for m in r["messages"]) for r in viewed(pairs, "messages")] == pairs
    assert [tuple(m["value"] for m in r["conversations"]) for r in viewed(pairs, "sharegpt")] == pairs
    assert [(r["instruction"], r["output"]) for r in viewed(pairs, "alpaca")] == pairs


def test_views_of_a_table_in_pieces() -> None:
    """Row groups come as several chunks, and as slices that begin in the middle of a buffer."""
    whole = pa.table({"instruction": [f"i{n}" for n in range(9)], "answer": [f"a{n}" for n in range(9)]})
    pieces = pa.concat_tables([whole.slice(2, 3), whole.slice(6, 2)])
    said = [tuple(m["content"] for m in r["messages"]) for r in view_columns(pieces, "messages").to_pylist()]
    assert said == [(f"i{n}", f"a{n}") for n in (2, 3, 4, 6, 7)]


@given(TEXTS, PAIRS)
def test_a_document_is_followed_by_its_pairs(document: str, pairs: list[tuple[str, str]]) -> None:
    text = with_pairs(document, pairs)
    assert text.startswith(document)
    assert text == document + "".join(f"\n\n{pair_text(*pair)}" for pair in pairs)
