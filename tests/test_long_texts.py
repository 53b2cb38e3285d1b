"""Texts made to be slow: what grows with the square of a length would take hours here, and what does not a moment."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fineinstructions.backends.replies import json_reply
from fineinstructions.embedded.document_text import DocumentText
from fineinstructions.judging import parse_flow_verdict
from fineinstructions.markup import has_tag, parse_answer, parse_template
from fineinstructions.pairs.excerpts import coverage_ratio
from fineinstructions.pairs.instantiate import parse_reply as parse_instantiated
from fineinstructions.pii import scrub
from fineinstructions.templates.genericize import parse_reply as parse_genericized

LENGTH = 200_000
SECONDS = 60


def json_verdict(text: str) -> Any:
    return json_reply(text, ("feedback", "score"), null=True)


def sentences(text: str) -> Any:
    document = DocumentText(f"A sentence before. Another.\n\n{text}\n\nA sentence after it.")
    return document.sections, document.sentences


REPLIES: tuple[Callable[[str], Any], ...] = (json_verdict, parse_instantiated, parse_genericized, parse_flow_verdict)
MARKUP: tuple[Callable[[str], Any], ...] = (has_tag, parse_template, parse_answer, scrub)
SLOW = {
    "score tags": ("<score>", REPLIES),
    "feedback tags": ("<score>5</score>" + "<feedback>", REPLIES),
    "an open fence": ("```\n" + " " * LENGTH + "x", REPLIES),
    "fences": ("```a", REPLIES),
    "thoughts": ("<think>", REPLIES),
    "braces": ("{", REPLIES),
    "keys": ('{"score":', REPLIES),
    "open strings": ('{"', REPLIES),
    "a number": ('{"feedback": ' + "9" * LENGTH + "}", REPLIES),
    "blanks in a tag": ("<" + " " * LENGTH, MARKUP),
    "blanks and a slash": ("</" + " " * LENGTH + "fi" + " " * LENGTH, MARKUP),
    "tags": ("<fi>a</fi>", MARKUP),
    "excerpts": ("<excerpt>a</excerpt>", MARKUP),
    "addresses": ("a@a.", MARKUP),
    "digits": ("1 ", MARKUP),
    "protocols": ("a://", MARKUP),
    "dots": (".", (sentences,)),
    "dots and quotes": ('."', (sentences,)),
    "a heading of blanks": ("# a" + " " * LENGTH + "b", (sentences,)),
    "a heading of marks": ("# " + "#" * LENGTH + "x", (sentences,)),
    "blanks before a word": (" " * LENGTH + "x", (sentences,)),
    "bars": ("|" * LENGTH + "x", (sentences,)),
    "lines": ("\nx", (sentences,)),
}
"""A text, repeated to the length if it is short, and what reads it."""


@contextmanager
def in_time(seconds: int) -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", SLOW)
def test_a_text_made_to_be_slow_takes_a_moment(name: str) -> None:
    text, readers = SLOW[name]
    whole = text if len(text) > LENGTH else text * (LENGTH // len(text))
    for read in readers:
        with in_time(SECONDS):
            try:
                read(whole)
            except ValueError as error:
                assert not isinstance(error, UnicodeError)


def test_an_answer_of_one_letter_takes_a_moment() -> None:
    with in_time(SECONDS):
        assert coverage_ratio("a " * 20_000, "b " * 20_000 + "a") == 0.0
