"""Which work units have requests under way, seen from the server."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fineinstructions.backends.scripted_server import ScriptedServer

PATIENCE_SECONDS = 120.0
"""After which what is held back is answered, so that a run that never does what is waited for comes to an end."""


class UnitsWatch(ScriptedServer):
    """A server that knows which unit's documents it is asked about.

    Args:
        brain: What replies.
        texts: Texts of the documents, in order.
        unit_rows: Documents of a unit.
        num_awaited: Hold back what is asked about the last document of the first unit until the next so many units
            have asked something too; 0 to hold nothing back.
    """

    def __init__(self, brain: Any, texts: Sequence[str], unit_rows: int, num_awaited: int, **settings: Any) -> None:
        super().__init__(brain, **settings)
        self._unit_of = {text: row // unit_rows for row, text in enumerate(texts)}
        self._held = texts[unit_rows - 1]
        self._awaited = set(range(1, num_awaited + 1))
        self._has_come = asyncio.Event()
        self._open: Counter[int] = Counter()
        self.num_held = 0
        """Requests that were held back."""
        self.gave_up = False
        """Whether patience was at an end."""
        self.most_units = 0
        """Most units that had requests under way at once."""

    async def _answer(
        self, method: str, path: str, headers: Mapping[str, str], raw: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        text = document_of(raw)
        unit = self._unit_of.get(text)
        if unit is None:
            return await super()._answer(method, path, headers, raw, writer)
        self._open[unit] += 1
        self.most_units = max(self.most_units, len(+self._open))
        self._awaited.discard(unit)
        if not self._awaited:
            self._has_come.set()
        try:
            if text == self._held:
                await self._hold()
            return await super()._answer(method, path, headers, raw, writer)
        finally:
            self._open[unit] -= 1

    async def _hold(self) -> None:
        if self._has_come.is_set():
            return
        self.num_held += 1
        try:
            await asyncio.wait_for(self._has_come.wait(), PATIENCE_SECONDS)
        except TimeoutError:
            self.gave_up = True
            self._has_come.set()


def document_of(raw: bytes) -> str:
    """The document that a request asks to fill a template from; empty where it asks something else."""
    try:
        said = [message["content"] for message in json.loads(raw)["messages"] if message["role"] == "user"]
        return str(json.loads(said[0])["document"])
    except (ValueError, KeyError, TypeError, IndexError):
        return ""
