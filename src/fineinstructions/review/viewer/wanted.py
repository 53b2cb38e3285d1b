"""What somebody wants to see, as it stands in the address of a page: filters, order, a text to look for.

In: the parameters of an address. Out: `Wanted`, and the address again. Every state of the viewer is such an address, so
that it can be kept and sent to others.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

ORDERS = ("plan", "worst", "best", "shuffled")
MAX_TEXT_CHARS = 200


class BadAddressError(Exception):
    """An address whose parameters make no sense; one line that says so."""


@dataclass(frozen=True)
class Wanted:
    """Filters on pairs or rejections; a field that is empty or ``None`` filters nothing."""

    q: str = ""
    """Text in instruction, answer or title of a pair, or in the record of a rejection."""
    score: int | None = None
    """Only this score."""
    min_ratio: float | None = None
    max_ratio: float | None = None
    min_cosine: float | None = None
    source: str = ""
    template: str = ""
    """Id of a template."""
    document: str = ""
    """Id of a document."""
    stage: str = ""
    reason: str = ""
    sample: int | None = None
    """1 for the pairs of the audit only, in the order in which they were drawn."""
    sort: str = "plan"
    start: int = 0
    """Place in the list at which the page begins."""
    at: int | None = None
    """Place in the list of the one that is looked at."""

    def link(self, path: str, **changes: object) -> str:
        """Address of a page with these filters and some changes; what filters nothing is left out."""
        values = dataclasses.asdict(dataclasses.replace(self, **changes))  # type: ignore[arg-type]
        given = {k: v for k, v in values.items() if v != _DEFAULTS[k] and v is not None}
        return f"{path}?{urlencode(given)}" if given else path

    @property
    def is_filtered(self) -> bool:
        """Whether some of the pairs, of the audit or of all, are left out."""
        return dataclasses.replace(self, sample=None, sort="plan", start=0, at=None) != Wanted()


_DEFAULTS = dataclasses.asdict(Wanted())


def read_wanted(parameters: Mapping[str, str]) -> Wanted:
    """What the parameters of an address ask for; unknown ones are ignored.

    Raises:
        BadAddressError: If a number is none, or an order unknown.
    """
    found: dict[str, object] = {}
    for field in dataclasses.fields(Wanted):
        text = parameters.get(field.name, "")
        if not text.strip():
            continue
        kind = str(field.type)
        cut = text[:MAX_TEXT_CHARS] if field.name == "q" else text
        found[field.name] = cut if "str" in kind else _number(field.name, text, kind)
    wanted = Wanted(**found)  # type: ignore[arg-type]
    if wanted.sort not in ORDERS:
        raise BadAddressError(f"sort={wanted.sort}: no such order; known are {', '.join(ORDERS)}")
    return wanted


def _number(name: str, text: str, kind: str) -> float | int:
    try:
        value = int(text) if "int" in kind else float(text)
    except ValueError:
        raise BadAddressError(f"{name}={text[:40]}: not a number") from None
    if not math.isfinite(value) or abs(value) > 1e15:
        raise BadAddressError(f"{name}={text[:40]}: out of range")
    if name in ("start", "at") and value < 0:
        raise BadAddressError(f"{name}={text[:40]}: must not be negative")
    return value
