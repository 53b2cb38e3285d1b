"""How matching went in a run, as the run itself found out at its end: ``RUN/diagnostics.json``.

Comes in: the file. Goes out: plain values, or nothing where they do not belong to the units that lie there now.
"""

import json
from typing import Any

from fineinstructions.config import digest
from fineinstructions.errors import DataError
from fineinstructions.runs import RunFolder

DIAGNOSTICS_FILE = "diagnostics.json"
DIAGNOSED_PHASES = ("candidates", "popularity", "matches")


def origin(run: RunFolder) -> str:
    """Digest of the units that a diagnosis is made from.

    Raises:
        DataError: If one of the phases is not complete.
    """
    if any(run.planned(phase) is None for phase in DIAGNOSED_PHASES):
        raise DataError(f"{run.root}: not all documents are matched yet; run again to finish it")
    return digest([run.content(phase) for phase in DIAGNOSED_PHASES])


def read_diagnostics(run: RunFolder) -> dict[str, Any] | None:
    """The figures of a run; ``None`` where there are none, or they are older than the units.

    Args:
        run: A run folder, finished or not.
    """
    try:
        found = json.loads((run.root / DIAGNOSTICS_FILE).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) and found.get("made_from") == origin(run) else None
    except (OSError, ValueError, DataError):
        return None
