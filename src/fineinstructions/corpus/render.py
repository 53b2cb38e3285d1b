r"""Pairs to the columns that training programs read: plain text, chat messages, prompt and completion.

In: a table with `instruction` and `answer`. Out: the columns of a view, as Arrow computes them: a corpus has more pairs
than Python should touch one by one. The decision to question: `prompt` ends before the blank in front of the answer,
so that both parts together are the training text to the byte and tokens meet where words begin.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fineinstructions.pair_text import ANSWER_LABEL, INSTRUCTION_LABEL, pair_text

View = Literal["text", "messages", "prompt_completion", "alpaca", "sharegpt"]
SEPARATOR = "\n\n"
"""What stands between a document and its pairs, and between these, in a row that holds all of them."""


def with_pairs(document: str, pairs: Sequence[tuple[str, str]]) -> str:
    r"""A document followed by its pairs, as one training text.

    Source:
        Instruction Pre-Training (arXiv:2406.14491) trains on raw text followed by its pairs; the format of the pairs is
        that of arXiv:2601.22146, so that arms differ in one thing.

    Example:
        >>> with_pairs("Rain falls.", [("What falls?", "Rain.")])
        'Rain falls.\n\nInstruction: What falls?\n\nAnswer: Rain.'
    """
    return SEPARATOR.join([document, *(pair_text(instruction, answer) for instruction, answer in pairs)])


def view_columns(table: pa.Table, view: View) -> pa.Table:
    r"""The columns of a view, row by row.

    Args:
        table: Has `instruction` and `answer`, without nulls.
        view: ``text``: the paper's training text; ``messages``: one user and one assistant message;
            ``prompt_completion``: the training text in two parts; ``alpaca``: `instruction`, an empty `input`,
            `output`; ``sharegpt``: `conversations` of a human and a gpt.

    Example:
        >>> pair = pa.table({"instruction": ["Why?"], "answer": ["So."]})
        >>> view_columns(pair, "text").to_pylist()
        [{'text': 'Instruction: Why?\n\nAnswer: So.'}]
        >>> view_columns(pair, "prompt_completion").to_pylist()
        [{'prompt': 'Instruction: Why?\n\nAnswer:', 'completion': ' So.'}]
    """
    instruction, answer = (_whole(table, name) for name in ("instruction", "answer"))
    if view == "text":
        return pa.table({"text": _joined(INSTRUCTION_LABEL, instruction, ANSWER_LABEL, answer)})
    if view == "messages":
        return pa.table({"messages": _dialogue("role", ("user", "assistant"), "content", instruction, answer)})
    if view == "sharegpt":
        return pa.table({"conversations": _dialogue("from", ("human", "gpt"), "value", instruction, answer)})
    if view == "alpaca":
        empty = pa.array([""] * len(answer), pa.string())
        return pa.table({"instruction": instruction, "input": empty, "output": answer})
    prompt = _joined(INSTRUCTION_LABEL, instruction, ANSWER_LABEL.rstrip(" "))
    return pa.table({"prompt": prompt, "completion": _joined(" ", answer)})


def _whole(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    return column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)


def _joined(*parts: pa.Array | str) -> pa.Array:
    """Texts put together row by row, with nothing between the parts."""
    return pc.binary_join_element_wise(*parts, "")


def _dialogue(speaker: str, names: tuple[str, str], said: str, first: pa.Array, second: pa.Array) -> pa.Array:
    """Two turns per row, as lists of two structs."""
    number = len(first)
    places = np.arange(2 * number).reshape(2, number).T.ravel()
    texts = pa.concat_arrays([first, second]).take(pa.array(places))
    speakers = pa.array([name for _ in range(number) for name in names], pa.string())
    turns = pa.StructArray.from_arrays([speakers, texts], [speaker, said])
    return pa.ListArray.from_arrays(pa.array(np.arange(0, 2 * number + 1, 2), pa.int32()), turns)
