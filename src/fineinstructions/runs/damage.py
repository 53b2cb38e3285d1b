"""What `verify` has found damaged, for the next run to look at closely and make again.

In: a run folder. Out: ``RUN/damaged.json``, written anew by every `verify`, gone after a clean one. The decision a
reader would question: a run believes sizes and reads no content again, because that would cost as much as `verify`. So
`verify` leaves a note; a run trusts it no further than to read what it names.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from fineinstructions.runs.durable import write_text

FILE = "damaged.json"


@dataclass
class Damage:
    """Work units and tables whose content is not what was committed."""

    units: dict[str, list[str]] = field(default_factory=dict)
    """Ids by phase."""
    tables: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, root: Path) -> Self:
        """What the last `verify` has left; nothing where the note itself cannot be read."""
        try:
            plain = json.loads((root / FILE).read_text(encoding="utf-8"))
            units = {str(phase): [str(unit_id) for unit_id in ids] for phase, ids in plain["units"].items()}
            return cls(units, [str(name) for name in plain["tables"]])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def save(self, root: Path) -> None:
        """Leave it for the next run; no damage leaves no note.

        Raises:
            OSError: If the folder takes none.
        """
        if self.units or self.tables:
            write_text(root / FILE, json.dumps(asdict(self), indent=1) + "\n")
        else:
            (root / FILE).unlink(missing_ok=True)
