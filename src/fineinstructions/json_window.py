"""Takes a large JSON file apart value by value, in bounded memory.

In: a stream of bytes. Out: the elements of an array or the members of an object, each let go of before the next is
parsed: a few kilobytes of packed brackets would otherwise become gigabytes of empty lists. An object in which a key
occurs twice is told by its type, because the standard library keeps the last value without a word.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from fineinstructions.inputs import PIECE_BYTES

_BLANKS = re.compile(r"[ \t\r\n]*")


class Repeated(dict[str, Any]):
    """An object in which a key occurs twice; the last value stands."""

    key: str = ""
    """The key."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    repeated = Repeated(values)
    repeated.key = Counter(name for name, _ in pairs).most_common(1)[0][0]
    return repeated


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def parse_json(text: str) -> Any:
    """The value of a JSON text; an object in which a key occurs twice is a `Repeated`.

    Raises:
        ValueError: If it is no JSON.
        RecursionError: If it is nested too deeply.
    """
    return _DECODER.decode(text)


class JsonWindow:
    """The part of a JSON file that is read and not yet parsed.

    Args:
        stream: Bytes of the file.
        max_chars: Longest value that is parsed.

    All methods raise `ValueError` where the file is no JSON or a value is too long.
    """

    def __init__(self, stream: BinaryIO, max_chars: int) -> None:
        self._stream, self._max_chars = stream, max_chars
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._text, self._place, self._ended = "", 0, False

    def mark(self) -> str:
        """The next character that is no blank, without taking it; empty at the end of the file."""
        while True:
            found = _BLANKS.match(self._text, self._place)
            self._place = found.end() if found else self._place
            if self._place < len(self._text) or self._ended:
                return self._text[self._place : self._place + 1]
            self._read_on()

    def value(self) -> Any:
        """The next value."""
        self.mark()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError:
                if self._ended:
                    raise
            else:
                if end < len(self._text) or self._ended:  # a number at the very end may go on
                    self._place = end
                    return value
            if len(self._text) - self._place > self._max_chars:
                raise ValueError(f"no whole value in {self._max_chars:,} characters")
            self._read_on()

    def elements(self) -> Iterator[Any]:
        """The elements of the array that comes next."""
        self._take("[")
        if self.mark() == "]":
            self._take("]")
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def members(self) -> Iterator[tuple[str, Any]]:
        """The keys and values of the object that comes next."""
        self._take("{")
        if self.mark() == "}":
            self._take("}")
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"a key of an object is {type(key).__name__}")
            self._take(":")
            yield key, self.value()
            if self._take(",}") == "}":
                return

    def end(self) -> None:
        """Nothing but blanks may come after this."""
        if self.mark():
            raise ValueError(f"{self.mark()!r} after the end")

    def _take(self, wanted: str) -> str:
        found = self.mark()
        if not found or found not in wanted:
            raise ValueError(f"{found!r} where one of {wanted!r} should stand")
        self._place += 1
        return found

    def _read_on(self) -> None:
        """Let go of what is parsed and read at least as much as is left, so that a long value is tried a few times."""
        left = self._text[self._place :]
        raw = self._stream.read(max(PIECE_BYTES, len(left)))
        self._ended = not raw
        self._text, self._place = left + self._decode(raw, final=self._ended), 0
