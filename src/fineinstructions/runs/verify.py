"""The completeness contract, checked on a finished run: nothing lost, nothing changed, every excerpt verbatim.

Reads everything, trusts nothing but the plan, and leaves a note of what is damaged for the next run (`damage`). Room
code is not imported: the caller says how figures are linked and
how the documents of a unit are read.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.errors import BackendError, DataError
from fineinstructions.records import Document, Pair, content_id
from fineinstructions.runs.damage import FILE as DAMAGE_FILE
from fineinstructions.runs.damage import Damage
from fineinstructions.runs.files import FolderFiles, file_problems
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.ledger import Manifest
from fineinstructions.runs.remote import store_of
from fineinstructions.runs.specs import Plan, UnitSpec
from fineinstructions.runs.undone import undone

MAX_FINDINGS_PER_CHECK = 100
UNFINISHED = "run again to finish it"
"""How findings end of what is not there yet."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach of the contract."""

    place: str
    """Phase and unit, published table, or stage."""
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


DocumentReader = Callable[[UnitSpec], Iterable[Document]]
"""Gives the documents that a unit of the document phase accepted, in order."""


def verify(
    run: RunFolder,
    *,
    links: Sequence[tuple[str, str]] = (),
    published: Mapping[str, str] | None = None,
    documents: DocumentReader | None = None,
    document_phase: str = "matches",
    apart: tuple[str, Sequence[str]] = ("", ()),
) -> list[Finding]:
    """Check a run.

    Args:
        run: The run, complete.
        links: Pairs (figure, stage): what leaves the first enters the second. A figure is a stage (its output) or a
            name that was counted; compared unit by unit where both belong to the same units, else in total.
        published: For every published table the figure that equals its number of rows; ``rejected`` is always compared
            with the sum of all rejections and failures.
        documents: Reads the documents of a unit; ``None`` skips the checks that need them.
        document_phase: Phase whose units are the document units.
        apart: A table with the rejections of some phases, which then are not in ``rejected``, and those phases.

    Returns:
        What is wrong, in flow order; empty for a clean run.
    """
    findings: list[Finding] = []
    damage = Damage()
    figures = _Figures(links)
    for phase in run.phases:
        plan = run.planned(phase.name)
        if plan is None:
            findings.append(Finding(phase.name, f"not planned yet; {UNFINISHED}"))
            continue
        figures.begin(plan)
        for spec, manifest in _check_units(run, phase.name, plan, findings, damage):
            _check_accounts(run, phase.name, spec, manifest, findings)
            figures.add(spec.ordinal, manifest, apart[0] if phase.name in apart[1] else "rejected")
    for upstream, downstream in links:
        findings += figures.check_link(upstream, downstream)
    expected = {name: f"out of {figure}" for name, figure in (published or {}).items()}
    expected |= {name: f"turned away {name}" for name in ("rejected", apart[0]) if name}
    for name, figure in expected.items():
        findings += _check_published(run, name, figures.totals.get(figure, 0), damage)
    if documents is not None:
        findings += _check_documents(run, documents, document_phase)
    return [*findings, *_left_for_the_next_run(run, damage)]


def _left_for_the_next_run(run: RunFolder, damage: Damage) -> Iterator[Finding]:
    """Have the next run make again what is damaged; on a store what is damaged is deleted by hand, as findings say."""
    if store_of(run.root) is not None:
        return
    try:
        damage.save(run.root)
    except OSError as error:
        if damage.units or damage.tables:
            yield Finding(DAMAGE_FILE, f"cannot be written ({error.strerror}), so no run makes again what is damaged")


def _check_units(
    run: RunFolder, phase: str, plan: Plan, findings: list[Finding], damage: Damage
) -> Iterator[tuple[UnitSpec, Manifest]]:
    """Units of a phase whose manifests can be read; what is missing or damaged goes to the findings."""
    lost = _check_packs(run, phase, len(plan), findings)
    foreign = np.zeros(len(plan), np.bool_)
    foreign[undone(run, phase, plan, digest=run.digest(phase), upstream=run.phase(phase).upstream)] = True
    num_missing = 0
    for spec in run.ahead(phase):
        place = f"{phase}/{spec.folder_name}"
        try:
            run.fetched(phase, spec)
            found = run.committed(phase, spec)
        except DataError as error:
            if not lost[spec.ordinal]:
                findings.append(Finding(place, str(error)))
                damage.units.setdefault(phase, []).append(spec.unit_id)
            continue
        if found is None:
            num_missing += 1
            if num_missing <= MAX_FINDINGS_PER_CHECK:
                findings.append(Finding(place, f"not committed; {UNFINISHED}"))
            continue
        problems = file_problems(found.files, found.manifest.files, thorough=True)
        if problems:
            damage.units.setdefault(phase, []).append(spec.unit_id)
            problems = [f"{problem}; run again to make it anew" for problem in problems]
        if foreign[spec.ordinal] and not problems:
            problems = ["does not belong to the present recipe or upstream units; run again"]
        findings += [Finding(place, problem) for problem in problems]
        yield spec, found.manifest
    if num_missing > MAX_FINDINGS_PER_CHECK:
        findings.append(Finding(phase, f"{num_missing} of {len(plan)} units are not committed; {UNFINISHED}"))


def _check_packs(run: RunFolder, phase: str, num_units: int, findings: list[Finding]) -> NDArray[np.bool_]:
    """Which units lie in a pack that cannot be read, each of which is one finding."""
    lost = np.zeros(num_units, np.bool_)
    shelf = run.shelf(phase)
    for name in shelf.packs:
        try:
            shelf.pack(name).check()
        except DataError as error:
            findings.append(Finding(f"{phase}/{name}", str(error)))
            lost[name.first : name.last + 1] = True
    return lost


def _check_accounts(run: RunFolder, phase: str, spec: UnitSpec, manifest: Manifest, findings: list[Finding]) -> None:
    """Every stage of a unit adds up, and all of the unit's rows entered the first one."""
    place = f"{phase}/{spec.folder_name}"
    for stage, account in manifest.stages.items():
        if account.num_missing:
            findings.append(Finding(place, f"stage {stage!r} lost {account.num_missing} of {account.num_in} records"))
    entry = run.phase(phase).entry
    if not entry or not (spec.num_rows or run.phase(phase).entry_figure):
        return
    try:
        expected = run.entering(phase, spec)
    except DataError:
        return  # The upstream unit is damaged, which has its own finding.
    entered = manifest.stages[entry].num_in if entry in manifest.stages else 0
    if entered != expected:
        findings.append(Finding(place, f"{entered} of {expected} records entered its first stage {entry!r}"))


@dataclass(frozen=True, slots=True)
class _Column:
    """A figure of all units of a phase, -1 where a unit does not have it."""

    plan: Plan
    values: NDArray[np.int64]

    def has_units_of(self, other: "_Column") -> bool:
        """Whether the same units have both figures."""
        same = self.plan.unit_ids.equals(other.plan.unit_ids)
        return bool(same and np.array_equal(self.values >= 0, other.values >= 0))


class _Figures:
    """Figures of all units, added up; those that links compare, unit by unit at 8 bytes each.

    A name that several phases have stands for the last of them.
    """

    def __init__(self, links: Sequence[tuple[str, str]]) -> None:
        self.totals: dict[str, int] = {}
        self._compared = {f"out of {before}" for before, _ in links} | {f"into {after}" for _, after in links}
        self._columns: dict[str, _Column] = {}
        self._seen: set[str] = set()

    def begin(self, plan: Plan) -> None:
        """Begin a phase."""
        self._plan = plan
        self._seen = set()

    def add(self, ordinal: int, manifest: Manifest, table: str) -> None:
        """Add the figures of one unit; what was turned away is in a table of that name."""
        for name in [*manifest.stages, *manifest.counts]:
            self._add(ordinal, f"out of {name}", manifest.figure(name))
        for name, account in manifest.stages.items():
            self._add(ordinal, f"into {name}", account.num_in)
            key = f"turned away {table}"
            self.totals[key] = self.totals.get(key, 0) + account.num_turned_away

    def _add(self, ordinal: int, key: str, number: int) -> None:
        if key not in self._seen:
            self._seen.add(key)
            self.totals[key] = 0
            if key in self._compared:
                self._columns[key] = _Column(self._plan, np.full(len(self._plan), -1, np.int64))
        self.totals[key] += number
        if key in self._compared:
            self._columns[key].values[ordinal] = number

    def check_link(self, upstream: str, downstream: str) -> Iterator[Finding]:
        """What leaves one figure enters the other."""
        place, out, into = f"{upstream} -> {downstream}", f"out of {upstream}", f"into {downstream}"
        before, after = self._columns.get(out), self._columns.get(into)
        if before is not None and after is not None and before.has_units_of(after):
            for i in np.flatnonzero(before.values != after.values).tolist():
                unit_id = before.plan[i].unit_id
                yield Finding(place, f"unit {unit_id}: {before.values[i]} left, {after.values[i]} entered")
        elif self.totals.get(out, 0) != self.totals.get(into, 0):
            yield Finding(place, f"{self.totals.get(out, 0)} left, {self.totals.get(into, 0)} entered")


def _check_published(run: RunFolder, name: str, expected: int, damage: Damage) -> Iterator[Finding]:
    manifest = run.published(name)
    if manifest is None:
        yield Finding(name, f"not published; {UNFINISHED}")
        return
    if not run.is_published(name, manifest.phase):
        yield Finding(name, "older than the units it is made from, or damaged; run again")
    try:
        folder = run.fetched_table(name)
    except (BackendError, DataError) as error:
        yield Finding(name, str(error))
        return
    for problem in file_problems(FolderFiles(folder), manifest.files, thorough=True):
        damage.tables += [] if name in damage.tables else [name]
        yield Finding(name, f"{problem}; run again to write it anew")
    if manifest.counts["rows"] != expected:
        yield Finding(name, f"{manifest.counts['rows']} rows, but the units account for {expected}")


def _check_documents(run: RunFolder, documents: DocumentReader, phase: str) -> list[Finding]:
    """Ids are unique, and every published pair quotes its document verbatim."""
    findings: list[Finding] = []
    document_ids = _UniqueIds("document_id")
    pair_ids = _UniqueIds("pair_id")
    pairs = run.published_records("pairs", Pair)
    try:
        pair = next(pairs, None)
        for spec in run.planned(phase) or ():
            texts: dict[str, str] = {}
            for document in documents(spec):
                document_ids.add(document.document_id)
                texts[document.document_id] = document.text
            while pair is not None and pair.document_id in texts:
                pair_ids.add(pair.pair_id)
                findings += [
                    Finding(f"pair {pair.pair_id}", p) for p in excerpt_problems(pair, texts[pair.document_id])
                ]
                pair = next(pairs, None)
    except DataError as error:
        return [*findings, Finding("pairs", str(error))]
    if pair is not None:
        findings.append(Finding(f"pair {pair.pair_id}", f"document {pair.document_id!r} is not where the plan has it"))
    findings = findings[:MAX_FINDINGS_PER_CHECK]
    findings += document_ids.repeated(d.document_id for spec in run.planned(phase) or () for d in documents(spec))
    findings += pair_ids.repeated(pair.pair_id for pair in run.published_records("pairs", Pair))
    return findings


def excerpt_problems(pair: Pair, text: str) -> list[str]:
    """What is wrong with a pair's excerpts, given the text of its document.

    Example:
        >>> from fineinstructions.records import Excerpt
        >>> from types import SimpleNamespace
        >>> pair = SimpleNamespace(answer="It rains.", excerpts=(Excerpt(0, 9, 6, 15),))
        >>> excerpt_problems(pair, "Look: It rains. Much.")
        []
        >>> excerpt_problems(pair, "Look: It pours. Much.")
        ['excerpt 0 is not the text of its document at 6:15']
    """
    problems = []
    for number, e in enumerate(pair.excerpts):
        inside = 0 <= e.answer_start < e.answer_end <= len(pair.answer) and 0 <= e.document_start < e.document_end
        if not inside or e.document_end > len(text):
            problems.append(f"excerpt {number} has offsets outside of its answer or document: {e}")
        elif pair.answer[e.answer_start : e.answer_end] != text[e.document_start : e.document_end]:
            problems.append(f"excerpt {number} is not the text of its document at {e.document_start}:{e.document_end}")
    return problems


class _UniqueIds:
    """Finds repeated ids among many at 8 bytes an id: equal 64-bit hashes first, then the ids behind them."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._hashes: list[Any] = []
        self._pending: list[int] = []

    def add(self, value: str) -> None:
        self._pending.append(_hash(value))
        if len(self._pending) >= 65536:
            self._hashes.append(np.array(self._pending, dtype=np.uint64))
            self._pending = []

    def repeated(self, ids_again: Iterable[str]) -> list[Finding]:
        """One finding per repeated id; `ids_again` is read only where there are any."""
        hashes = np.concatenate([*self._hashes, np.array(self._pending, dtype=np.uint64)])
        values, counts = np.unique(hashes, return_counts=True)
        suspects = {int(value) for value in values[counts > 1]}
        if not suspects:
            return []
        times = Counter(value for value in ids_again if _hash(value) in suspects)
        found = [Finding(self._kind, f"{value!r} occurs {n} times") for value, n in times.items() if n > 1]
        return found[:MAX_FINDINGS_PER_CHECK]


def _hash(value: str) -> int:
    return int(content_id("", value)[1:], 16)
