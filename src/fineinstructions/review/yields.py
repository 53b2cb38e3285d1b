"""What instantiation yields: how many tries become pairs, by whatever a try is told apart by, and by template.

In: `Attempt`s. Out: `Figures` of groups. The decision one may question: an engine's failure is no try, and the template
cap turns no try into a failure: neither says anything about template or model.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from fineinstructions.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelNames:
    """What the models of an attempt are called."""

    genericizer: str
    instantiator: str
    judge: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One template that was to be filled from one document, and what came of it."""

    template_id: str
    num_slots: int
    document_chars: int
    models: ModelNames
    reason: str = ""
    """``stage: reason`` of a rejection; empty where it became a pair."""
    failed: bool = False
    excerpt_ratio: float | None = None
    judge_score: int | None = None
    generated_tokens: int = 0
    answer_tokens: int = 0
    """Estimated; 0 where the excerpts were not found."""


@dataclass
class Figures:
    """Sums over the attempts of a group."""

    num_tries: int = 0
    num_kept: int = 0
    num_failed: int = 0
    """Attempts that an engine failed on; not among the tries."""
    reasons: Counter[str] = field(default_factory=Counter)
    _ratios: float = 0.0
    _num_ratios: int = 0
    _scores: int = 0
    _num_scores: int = 0
    _generated: int = 0
    _answers: int = 0

    def add(self, attempt: Attempt) -> None:
        """Take an attempt into account."""
        if attempt.failed:
            self.num_failed += 1
            return
        self.num_tries += 1
        self.num_kept += not attempt.reason
        if attempt.reason:
            self.reasons[attempt.reason] += 1
        if attempt.excerpt_ratio is not None:
            self._ratios, self._num_ratios = self._ratios + attempt.excerpt_ratio, self._num_ratios + 1
        if attempt.judge_score is not None:
            self._scores, self._num_scores = self._scores + attempt.judge_score, self._num_scores + 1
        if attempt.answer_tokens:
            self._generated += attempt.generated_tokens
            self._answers += attempt.answer_tokens

    @property
    def kept_share(self) -> float:
        """Share of the tries that became pairs; 0 without tries."""
        return self.num_kept / self.num_tries if self.num_tries else 0.0

    @property
    def excerpt_ratio(self) -> float | None:
        """Mean over the answers whose excerpts were found, those that quote too little among them."""
        return self._ratios / self._num_ratios if self._num_ratios else None

    @property
    def judge_score(self) -> float | None:
        """Mean over the answers that were judged."""
        return self._scores / self._num_scores if self._num_scores else None

    @property
    def generated_tokens_ratio(self) -> float | None:
        """Tokens that were generated per token of the answers, where excerpts were found."""
        return self._generated / self._answers if self._answers else None


def slot_class(num_slots: int) -> str:
    """Class of a template by its slots.

    Source:
        arXiv:2601.22146, section 6.3, calls ten slots and more complex; 1-3 and 4-9 are ours.
    """
    return "1-3" if num_slots <= 3 else "4-9" if num_slots <= 9 else "10+"


def length_class(num_chars: int) -> str:
    """Class of a document by its characters. Ours; 24,000 is what an instantiator is shown by default."""
    for limit, name in ((2000, "under 2,000"), (8000, "2,000-7,999"), (24_000, "8,000-23,999")):
        if num_chars < limit:
            return name
    return "24,000+"


KEYS: dict[str, Callable[[Attempt], str]] = {
    "slots": lambda attempt: slot_class(attempt.num_slots),
    "length": lambda attempt: length_class(attempt.document_chars),
    "model": lambda attempt: attempt.models.instantiator,
    "genericizer": lambda attempt: attempt.models.genericizer,
    "judge": lambda attempt: attempt.models.judge,
}
"""What attempts can be grouped by; ``model`` is the instantiator."""
ORDER = ("1-3", "4-9", "10+", "under 2,000", "2,000-7,999", "8,000-23,999", "24,000+")


def parse_by(by: str) -> list[tuple[str, ...]]:
    """The tables that were asked for: keys between commas, crossed where a plus stands between them.

    Raises:
        ConfigError: If a key is unknown.

    Example:
        >>> parse_by("slots,model+slots")
        [('slots',), ('model', 'slots')]
    """
    tables = [tuple(key.strip() for key in table.split("+")) for table in by.split(",")]
    unknown = next((key for table in tables for key in table if key not in KEYS), None)
    if unknown is not None:
        raise ConfigError(
            f"--by: unknown key {unknown!r}; known are {', '.join(KEYS)}, and model+slots for both at once"
        )
    return tables


def tabulate(attempts: Iterable[Attempt], tables: Sequence[tuple[str, ...]]) -> list[dict[tuple[str, ...], Figures]]:
    """Figures of every group of every table, in one pass.

    Args:
        attempts: All attempts.
        tables: Keys of each table, as `parse_by` gives them.

    Returns:
        For each table the figures by the values of its keys, in the order of `ORDER`, names by the alphabet.
    """
    found: list[dict[tuple[str, ...], Figures]] = [{} for _ in tables]
    for attempt in attempts:
        for keys, groups in zip(tables, found, strict=True):
            groups.setdefault(tuple(KEYS[key](attempt) for key in keys), Figures()).add(attempt)
    return [dict(sorted(groups.items(), key=lambda group: _rank(group[0]))) for groups in found]


def _rank(values: tuple[str, ...]) -> tuple[tuple[int, str], ...]:
    return tuple((ORDER.index(value), "") if value in ORDER else (-1, value) for value in values)


def by_template(attempts: Iterable[Attempt]) -> dict[str, Figures]:
    """Figures of every template that was tried, by its id."""
    found: dict[str, Figures] = {}
    for attempt in attempts:
        found.setdefault(attempt.template_id, Figures()).add(attempt)
    return found


def never_working(figures: dict[str, Figures], min_tries: int, max_yield: float) -> Iterator[str]:
    """Templates whose tries (nearly) never become pairs.

    Args:
        figures: As `by_template` gives them.
        min_tries: Fewest tries that say something about a template.
        max_yield: Largest share of tries that became pairs.

    Yields:
        Ids, the most tried templates first.
    """
    for template_id, found in sorted(figures.items(), key=lambda item: (-item[1].num_tries, item[0])):
        if found.num_tries >= min_tries and found.kept_share <= max_yield:
            yield template_id
