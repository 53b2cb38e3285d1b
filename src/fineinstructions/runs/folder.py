"""The run folder: create, open, compare with the recipe, plan, find what is to be done, publish.

Opening only looks; everything that changes the folder happens inside `RunFolder.lease`. Results are dropped in one case
only: the recipe or the input changed and the caller said ``redo``.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from fineinstructions.config import differences, digest, to_yaml
from fineinstructions.errors import ConfigError, DataError, StaleError
from fineinstructions.records import failure
from fineinstructions.runs import mirror
from fineinstructions.runs.damage import Damage
from fineinstructions.runs.detached import hold_run
from fineinstructions.runs.durable import TEMPORARY_PREFIX, remove_temporary, replace_folder, watch_disk, write_text
from fineinstructions.runs.files import FolderFiles, file_problems
from fineinstructions.runs.head import LEASE_SECONDS
from fineinstructions.runs.layout import LAYOUT, Layout
from fineinstructions.runs.ledger import Manifest, list_files
from fineinstructions.runs.mirror import LOCK
from fineinstructions.runs.packing import Packer
from fineinstructions.runs.remote import MARK, place_of, store_of
from fineinstructions.runs.settle import settle
from fineinstructions.runs.specs import Plan, UnitSpec, as_plan
from fineinstructions.runs.tables import write_parts
from fineinstructions.runs.undone import inputs_of, undone
from fineinstructions.runs.unit import Unit

NAMES_OF_A_NEW_RUN = frozenset({"cache", "lease", "logs", "plan", "recipe.resolved.yaml", MARK, LOCK})
MAX_DIFFERENCES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Phase:
    """A group of stages whose units are committed together."""

    name: str
    digest: str
    """Digest of the settings, code versions and models that decide its bytes; `RunFolder` adds the upstream phases."""
    upstream: tuple[str, ...] = ()
    """Phases whose units it reads; they stand before it."""
    entry: str = ""
    """First stage; the rows of a unit that is set aside are counted as failed there."""
    entry_figure: str = ""
    """What enters the first stage: a stage or counted figure of the same upstream unit; empty for the unit's rows."""


@dataclass(frozen=True)
class RunFolder(Layout):
    """A run folder together with the recipe and the phases it is to hold. Can be sent to a worker process."""

    phases: tuple[Phase, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    redo: bool = False

    @classmethod
    def create_or_open(
        cls, path: str | Path, config: dict[str, Any], phases: Sequence[Phase], *, redo: bool = False
    ) -> Self:
        """Look at a folder and check that it is fit for this recipe; changes nothing yet.

        Args:
            path: The run folder; made by `lease` where it does not exist.
            config: The recipe with every default, as plain values.
            phases: Phases in flow order.
            redo: Whether results that the recipe made stale may be dropped.

        Raises:
            ConfigError: If the folder holds something else, or holds results of another recipe and `redo` is off; the
                line names the fields that differ and the phases that they make stale.
            ValueError: If a phase stands before one of its upstream phases.
        """
        known: set[str] = set()
        for phase in phases:
            if not known.issuperset(phase.upstream):
                raise ValueError(f"phase {phase.name!r} stands before one of its upstream phases {phase.upstream}")
            known.add(phase.name)
        run = cls(root=Path(path), phases=tuple(phases), config=config, redo=redo)
        run._check()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an existing run as it is, for `status` and `verify`.

        Raises:
            ConfigError: If there is no run in the folder.
        """
        layout = Layout(Path(path))
        state = layout.state()
        if state is None:
            raise ConfigError(f"{place_of(layout.root)}: no run here; give the folder that was named by --out")
        phases = tuple(Phase(**{**plain, "upstream": tuple(plain["upstream"])}) for plain in state["phases"])
        return cls(root=layout.root, phases=phases, config=layout.recipe())

    def phase(self, name: str) -> Phase:
        """Phase of that name.

        Raises:
            ValueError: If the run has no such phase.
        """
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise ValueError(f"no phase {name!r} in this run; there are {', '.join(p.name for p in self.phases)}")

    def digest(self, name: str) -> str:
        """Digest of everything that decides a phase's bytes, upstream phases included."""
        phase = self.phase(name)
        return digest(phase.digest, [self.digest(upstream) for upstream in phase.upstream])

    @contextmanager
    def lease(
        self, note: Callable[[str], None] = lambda _: None, store_seconds: float = LEASE_SECONDS
    ) -> Iterator[None]:
        """Hold the folder alone, bring it in line with the recipe, clear leftovers of a killed run.

        Args:
            note: Told what is waited for.
            store_seconds: How long a driver of a run on a store may be silent until another may take over.

        Raises:
            ConfigError: If another run holds the folder, it no longer fits the recipe, or its disk takes no more.
            BackendError: If the run lies on a store and was lost there.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            self.state_file.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.root}: cannot be made ({error.strerror}); choose another --out") from None
        with watch_disk(self.root), hold_run(self.root, self.lease_file), mirror.held(self, note, store_seconds):
            stale = self._check()
            self._drop(stale)
            self._clear()
            write_text(self.recipe_file, to_yaml(self.config))
            write_text(self.state_file, json.dumps(self._new_state(), indent=1) + "\n")
            try:
                yield
            finally:
                self._clear()

    def _clear(self) -> None:
        """Remove what killed drivers and workers left."""
        parents = [path for path in (self.root / "units", self.published_folder("")) if path.exists()]
        for folder in (self.root, self.state_file.parent, *(path for parent in parents for path in parent.iterdir())):
            remove_temporary(folder)

    def _new_state(self) -> dict[str, Any]:
        state = self.state() or {"phases": [], "digests": {}}
        mine = [asdict(p) | {"upstream": list(p.upstream)} for p in self.phases]
        names = {p.name for p in self.phases}
        others = [plain for plain in state["phases"] if plain["name"] not in names]
        digests = {**state["digests"], **{p.name: self.digest(p.name) for p in self.phases}}
        return {"layout": LAYOUT, "phases": mine + others, "digests": digests}

    def _check(self) -> list[str]:
        """Names of the phases that have to be dropped.

        Raises:
            ConfigError: If there are any and `redo` is off, or the folder is not ours.
        """
        if self.root.exists() and not self.root.is_dir():
            raise ConfigError(f"{self.root}: is a file; choose another --out")
        link = next((path for path in self._written() if path.is_symlink()), None)
        if link is not None:
            raise ConfigError(
                f"{link}: is a symbolic link, and a run writes and clears only what lies in its own folder; put the"
                " files in its place, or choose another --out"
            )
        state = self.state()
        if state is None:
            strangers = sorted({p.name for p in self.root.iterdir()} - NAMES_OF_A_NEW_RUN) if self.root.exists() else []
            strangers = [name for name in strangers if not name.startswith(TEMPORARY_PREFIX)]
            if strangers:
                raise ConfigError(f"{self.root}: holds {strangers[0]!r} and no run; choose an empty or new --out")
            return []
        stale = [
            p.name
            for p in self.phases
            if state["digests"].get(p.name, self.digest(p.name)) != self.digest(p.name) and self._has_results(p.name)
        ]
        if stale and not self.redo:
            raise StaleError(self._stale_line(stale))
        return stale

    def _written(self) -> Iterator[Path]:
        """Everything in the folder that a run writes to by name, or clears."""
        for folder in (self.root, self.logs, self.state_file.parent, self.published_folder(""), self.root / "units"):
            yield from folder.iterdir() if folder.is_dir() and not folder.is_symlink() else ()
        yield self.root / "units"

    def _stale_line(self, stale: list[str]) -> str:
        found = [f"{name}: {before!r} -> {after!r}" for name, before, after in differences(self.recipe(), self.config)]
        more = f" and {len(found) - MAX_DIFFERENCES_SHOWN} more" if len(found) > MAX_DIFFERENCES_SHOWN else ""
        changed = ", ".join(found[:MAX_DIFFERENCES_SHOWN]) + more
        kept = [p.name for p in self.phases if p.name not in stale and self._has_results(p.name)]
        return (
            f"{place_of(self.root)}: made with other settings"
            f" ({changed or 'no setting differs: input files, models or package version'}); stale: {', '.join(stale)};"
            f" run again with --redo to redo {'them' if len(stale) > 1 else 'it'}"
            f"{' and keep ' + ', '.join(kept) if kept else ''}, or choose another --out"
        )

    def _has_results(self, phase: str) -> bool:
        units = self.units(phase)
        if units.exists() and (any(units.glob("*/manifest.json")) or self.shelf(phase).packs):
            return True
        return bool(self._published_by([phase]))

    def _published_by(self, phases: Sequence[str]) -> list[str]:
        folder = self.published_folder("")
        found = []
        for path in sorted(folder.iterdir()) if folder.exists() else ():
            manifest = self.published(path.name)
            if manifest is None or manifest.phase in phases:
                found.append(path.name)
        return found

    def _drop(self, stale: Sequence[str]) -> None:
        """Remove units, unit lists and published tables of the phases, last phase first."""
        for phase in reversed(stale):
            for name in self._published_by([phase]):
                shutil.rmtree(self.published_folder(name), ignore_errors=True)
                shutil.rmtree(self.root / name, ignore_errors=True)
            self.forget_plan(phase)
            shutil.rmtree(self.units(phase), ignore_errors=True)

    def todo(
        self, phase: str, specs: Sequence[UnitSpec], *, retry_failed: bool = False, thorough: bool = False
    ) -> Plan:
        """Plan a phase and find which of its units are not done.

        Args:
            phase: The phase; its upstream phases are complete.
            specs: All of its units. Units that are new are added to an earlier plan.
            retry_failed: Whether units that were set aside, or lost single records to an engine, are tried again.
            thorough: Compare every committed file with its digest, not only those that `verify` has found damaged.

        Raises:
            ConfigError: If units that were committed are no longer planned (other input files, other unit size) and
                `redo` is off. A unit that grew, because a limit was raised, is made again without asking.
        """
        plan = as_plan(specs)
        settle(self, phase, plan, redo=self.redo)
        left = undone(
            self,
            phase,
            plan,
            digest=self.digest(phase),
            upstream=self.phase(phase).upstream,
            retry_failed=retry_failed,
            thorough=thorough,
            damaged=Damage.load(self.root).units.get(phase, ()),
        )
        todo = plan.select(left)
        mirror.before_units(self, phase, todo)
        return todo

    def pack(self) -> dict[str, tuple[int, int]]:
        """Pack the units of every phase, as a run does by itself; the caller holds the lease.

        Returns:
            For every phase that is planned, how many packs there are now, and how many units in folders of their own.

        Raises:
            ConfigError: If there is no room for packs on the disk.
        """
        found = {}
        for phase in self.phases:
            plan = self.planned(phase.name)
            if plan is None:
                continue
            settle(self, phase.name, plan, redo=False)
            with Packer(self, phase.name, np.empty(0, np.int64)) as packer:
                packer.finish()
            shelf = self.shelf(phase.name)
            found[phase.name] = len(shelf.packs), len(shelf.loose)
        return found

    def is_done(self, phase: str, spec: UnitSpec, *, retry_failed: bool = False) -> bool:
        """Whether a unit is committed, intact, and made from the present recipe and upstream units."""
        try:
            found = self.committed(phase, spec)
            if found is None or (found.manifest.has_failures and retry_failed):
                return False
            if found.manifest.digest != self.digest(phase) or found.manifest.inputs != self._inputs(phase, spec):
                return False
            is_stored = store_of(self.root) is not None  # then files that are not here can be fetched
            return is_stored or not file_problems(found.files, found.manifest.files)
        except DataError:
            return False

    def _inputs(self, phase: str, spec: UnitSpec) -> str:
        """Digest of the upstream units: the same unit where the upstream phase has it, else all of its units."""
        found = ((name, self.manifest(name, spec)) for name in self.phase(phase).upstream)
        return inputs_of([same.seal if same else self.content(name) for name, same in found])

    def unit(self, phase: str, spec: UnitSpec) -> Unit:
        """Open a unit for work.

        Raises:
            DataError: If an upstream phase is not complete.
        """
        return Unit(self, phase, spec, digest=self.digest(phase), inputs=self._inputs(phase, spec))

    def entering(self, phase: str, spec: UnitSpec) -> int:
        """How many records enter the first stage of a unit, known before it has run."""
        figure = self.phase(phase).entry_figure
        if not figure:
            return spec.num_rows
        found = (self.manifest(upstream, spec) for upstream in self.phase(phase).upstream)
        return sum(manifest.figure(figure) for manifest in found if manifest)

    def set_aside(self, phase: str, spec: UnitSpec, reason: str) -> None:
        """Give a unit up: commit it with every entering record as a failed rejection of the first stage.

        Raises:
            ValueError: If the phase has no `Phase.entry`.
        """
        stage = self.phase(phase).entry
        if not stage:
            raise ValueError(f"phase {phase!r} names no entry stage, so its units cannot be set aside")
        number = self.entering(phase, spec)
        lost = (failure(stage, reason, f"{spec.unit_id}/{i}", {"unit": spec.unit_id, "row": i}) for i in range(number))
        with self.unit(phase, spec) as unit:
            for _ in unit.keep(stage, lost):
                raise AssertionError("only failures were filed")
            unit.commit(set_aside=reason)

    def publish(
        self,
        name: str,
        record_type: type[Any],
        tables: Iterable[pa.Table],
        *,
        phase: str,
        rows_per_part: int | None = None,
        bytes_per_part: int = 256 << 20,
    ) -> int:
        """Write ``RUN/<name>/part-00000.parquet``, ... in one go: the old parts stay until the new ones are complete.

        Args:
            name: Folder in the run folder, for example ``pairs``.
            record_type: Type of the records.
            tables: Their rows in output order, as `Layout.tables` gives them; streamed.
            phase: Phase whose settings and upstream units decide the bytes.
            rows_per_part: Most rows in a part; ``None`` for any number.
            bytes_per_part: About the bytes of a part's file; only the last part is smaller.

        Returns:
            Number of rows.
        """
        temporary = self.root / f"{TEMPORARY_PREFIX}{name}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        rows = write_parts(temporary, tables, record_type, rows_per_part, bytes_per_part)
        manifest = Manifest(
            phase=phase,
            unit_id=name,
            digest=self.digest(phase),
            inputs=self._upstream_content(phase),
            stages={},
            counts={"rows": sum(rows.values())},
            files=list_files(temporary, rows),
        )
        replace_folder(temporary, self.root / name)
        self.published_folder(name).mkdir(parents=True, exist_ok=True)
        manifest.save(self.published_folder(name))
        if store := store_of(self.root):
            store.publish_table(name, self.root / name, manifest)
            mirror.push(store)
        return manifest.counts["rows"]

    def is_published(self, name: str, phase: str) -> bool:
        """Whether a published table is intact and made from the present recipe and upstream units."""
        manifest = self.published(name)
        if manifest is None or manifest.digest != self.digest(phase):
            return False
        try:
            current = manifest.inputs == self._upstream_content(phase)
        except DataError:
            return False
        if store := store_of(self.root):
            return current and store.has_table(name, manifest)
        is_suspect = name in Damage.load(self.root).tables
        return current and not file_problems(FolderFiles(self.root / name), manifest.files, thorough=is_suspect)

    def _upstream_content(self, phase: str) -> str:
        return digest([self.content(upstream) for upstream in self.phase(phase).upstream])
