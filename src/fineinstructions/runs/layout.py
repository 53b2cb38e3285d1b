"""Where things lie in a run folder, and how committed work is found and read back."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
import yaml

from fineinstructions.config import digest_of_list
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.records import Rejection
from fineinstructions.runs.files import FolderFiles, Source, UnitFiles, read_manifest
from fineinstructions.runs.ledger import Manifest
from fineinstructions.runs.remote import store_of
from fineinstructions.runs.shelf import Shelf, packed_unit
from fineinstructions.runs.specs import Plan, UnitSpec, as_plan
from fineinstructions.runs.tables import read_groups, read_table, table_name

R = TypeVar("R")

REJECTED_PREFIX = "rejected-"
LAYOUT = 2
"""Version of the run folder: 2 has plans as Arrow files and packs; 1 is read as well."""


class Committed(NamedTuple):
    """A committed unit."""

    files: UnitFiles
    manifest: Manifest


@dataclass(frozen=True)
class Layout:
    """Paths and committed content of one run folder; reads only, needs no lease."""

    root: Path

    @property
    def recipe_file(self) -> Path:
        """The recipe with every default."""
        return self.root / "recipe.resolved.yaml"

    @property
    def state_file(self) -> Path:
        """Phases and their digests; its presence makes a folder a run folder."""
        return self.root / "plan" / "run.json"

    @property
    def lease_file(self) -> Path:
        """The lock that keeps two runs apart; says who holds it."""
        return self.root / "lease"

    @property
    def logs(self) -> Path:
        """Tracebacks and rates."""
        return self.root / "logs"

    def units(self, phase: str) -> Path:
        """Folder of a phase's units."""
        return self.root / "units" / phase

    def unit_folder(self, phase: str, spec: UnitSpec) -> Path:
        """Folder of one unit when it is committed; its files may be moved into a pack later."""
        return self.units(phase) / spec.folder_name

    def plan_file(self, phase: str) -> Path:
        """Unit list of a phase."""
        return self.root / "plan" / f"{phase}.arrow"

    def shelf(self, phase: str) -> Shelf:
        """The committed units of a phase, as they lie there now."""
        return Shelf(self.units(phase))

    def published_folder(self, name: str) -> Path:
        """Folder of the manifest of a published table."""
        return self.root / "plan" / "published" / name

    def save_plan(self, phase: str, specs: Sequence[UnitSpec]) -> None:
        """Store a phase's unit list."""
        as_plan(specs).save(self.plan_file(phase))
        self._old_plan_file(phase).unlink(missing_ok=True)

    def planned(self, phase: str) -> Plan | None:
        """Unit list of a phase; ``None`` where the phase has not been planned yet.

        Raises:
            DataError: If the list is damaged.
        """
        try:
            return Plan.load(self.plan_file(phase))
        except FileNotFoundError:
            pass
        try:
            return Plan.load_json(self._old_plan_file(phase))
        except FileNotFoundError:
            return None

    def _old_plan_file(self, phase: str) -> Path:
        """Unit list of a phase in a run folder that was made before plans were Arrow files."""
        return self.root / "plan" / f"{phase}.json"

    def forget_plan(self, phase: str) -> None:
        """Remove a phase's unit list."""
        self.plan_file(phase).unlink(missing_ok=True)
        self._old_plan_file(phase).unlink(missing_ok=True)

    def committed(self, phase: str, spec: UnitSpec) -> Committed | None:
        """A unit's files and manifest, ``None`` where it has not been committed.

        Raises:
            DataError: If the manifest is torn, or the pack that holds it.
        """
        folder = FolderFiles(self.unit_folder(phase, spec))
        manifest = read_manifest(folder)
        if manifest is not None:
            return Committed(folder, manifest)
        packed = packed_unit(self.units(phase), spec)
        manifest = read_manifest(packed) if packed else None
        return Committed(packed, manifest) if packed and manifest else None

    def manifest(self, phase: str, spec: UnitSpec) -> Manifest | None:
        """Manifest of a unit, ``None`` where it has not been committed.

        Raises:
            DataError: If the manifest is torn, or the pack that holds it.
        """
        found = self.committed(phase, spec)
        return found.manifest if found else None

    def content(self, phase: str) -> str:
        """Digest of what all units of a phase hold, in plan order.

        Raises:
            DataError: If the phase is not complete.
        """
        plan = self.planned(phase)
        return digest_of_list(self._seals(phase, plan) if plan is not None else ())

    def _seals(self, phase: str, plan: Plan) -> Iterator[list[str]]:
        for found in self.shelf(phase).stretches(plan):
            for ordinal, seal in enumerate(found.seals, start=found.start):
                if seal:
                    continue
                place = self.unit_folder(phase, plan[ordinal])
                raise DataError(
                    found.problems.get(ordinal) or f"{place}: not committed yet, but phase {phase!r} is needed whole"
                )
            yield found.seals

    def unit_records(self, phase: str, spec: UnitSpec, record_type: type[R], name: str | None = None) -> Iterator[R]:
        """Records of one committed unit; none where the unit was set aside.

        Args:
            phase: Phase that wrote them.
            spec: The unit.
            record_type: Their type.
            name: Table name where it is not the record type's.

        Raises:
            DataError: If the unit is not committed, has no such table, or is damaged.
        """
        for source in self._unit_tables(phase, spec, name or table_name(record_type)):
            yield from read_table(source, record_type)

    def unit_groups(
        self, phase: str, spec: UnitSpec, name: str, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Row groups of a table of one committed unit, as they are; none where the unit was set aside.

        Args:
            phase: Phase that wrote it.
            spec: The unit.
            name: Table name.
            columns: Columns to read; ``None`` reads all.

        Raises:
            DataError: If the unit is not committed, has no such table, or is damaged.
        """
        for source in self._unit_tables(phase, spec, name):
            yield from read_groups(source, columns)

    def _unit_tables(self, phase: str, spec: UnitSpec, name: str) -> Iterator[Source]:
        """A unit's table; nothing where the unit was set aside."""
        found = self.committed(phase, spec)
        if found is None:
            folder = self.unit_folder(phase, spec)
            raise DataError(f"{folder}: not committed, but its records are needed; run again to make it")
        if found.manifest.set_aside:
            return
        place, table = found.files.place, f"{name}.parquet"
        self.fetched(phase, spec)
        if table not in {entry.name for entry in found.manifest.files}:
            raise DataError(f"{place}: has no {table}; phase {phase!r} does not write that table")
        yield _source(found.files, table)

    def fetched(self, phase: str, spec: UnitSpec) -> Path:
        """Folder of a committed unit with all of its files, which a run on a store fetches first."""
        folder = self.unit_folder(phase, spec)
        if store := store_of(self.root):
            store.fetch_unit(phase, spec, folder)
        return folder

    def fetched_table(self, name: str) -> Path:
        """Folder of a published table with all of its parts, which a run on a store fetches first."""
        manifest, store = self.published(name), store_of(self.root)
        if manifest is not None and store is not None:
            store.fetch_table(name, self.root / name, manifest)
        return self.root / name

    def ahead(self, phase: str) -> Iterator[UnitSpec]:
        """Units of a phase in plan order, for who reads all of them: a run on a store fetches the next ones ahead."""
        specs, store = self.planned(phase) or (), store_of(self.root)
        return iter(specs) if store is None else store.ahead(phase, specs, self.units(phase))

    def records(self, phase: str, record_type: type[R], name: str | None = None) -> Iterator[R]:
        """Records of all units of a phase in plan order; see `unit_records`."""
        for spec in self.ahead(phase):
            yield from self.unit_records(phase, spec, record_type, name)

    def tables(self, phase: str, record_type: type[Any], name: str | None = None) -> Iterator[pa.Table]:
        """Like `records`, as Arrow tables: for copying."""
        for spec in self.ahead(phase):
            yield from self.unit_groups(phase, spec, name or table_name(record_type))

    def rejected_tables(self, *phases: str) -> Iterator[pa.Table]:
        """Like `rejections`, as Arrow tables: for copying."""
        for phase in phases:
            for spec in self.ahead(phase):
                for source in self._rejected_files(phase, spec):
                    yield from read_groups(source)

    def rejections(self, *phases: str) -> Iterator[Rejection]:
        """Rejections of the phases' units: by phase, unit and stage, each in record order."""
        for phase in phases:
            for spec in self.ahead(phase):
                yield from self.unit_rejections(phase, spec)

    def unit_rejections(self, phase: str, spec: UnitSpec) -> Iterator[Rejection]:
        """Rejections of one unit, by stage, each in record order."""
        for source in self._rejected_files(phase, spec):
            yield from read_table(source, Rejection)

    def _rejected_files(self, phase: str, spec: UnitSpec) -> Iterator[Source]:
        """Files with what a unit turned away, by stage."""
        found = self.committed(phase, spec)
        known = {entry.name for entry in found.manifest.files} if found else set()
        for stage in found.manifest.stages if found else ():
            table = f"{REJECTED_PREFIX}{stage}.parquet"
            if found and table in known:
                self.fetched(phase, spec)
                yield _source(found.files, table)

    def published(self, name: str) -> Manifest | None:
        """Manifest of a published table, ``None`` where there is none or it is torn."""
        try:
            return read_manifest(FolderFiles(self.published_folder(name)))
        except DataError:
            return None

    def published_records(self, name: str, record_type: type[R]) -> Iterator[R]:
        """Records of a published table (``pairs``, ``matches``, ...) in order."""
        manifest = self.published(name)
        for entry in manifest.files if manifest else ():
            yield from read_table(self.fetched_table(name) / entry.name, record_type)

    def recipe(self) -> dict[str, Any]:
        """The resolved recipe that the folder was last used with; empty where it cannot be read."""
        try:
            recipe = yaml.safe_load(self.recipe_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return recipe if isinstance(recipe, dict) else {}

    def state(self) -> dict[str, Any] | None:
        """Content of the state file, ``None`` where the folder holds no run.

        Raises:
            ConfigError: If a newer version of this package made it.
            DataError: If it is damaged.
        """
        try:
            state = json.loads(self.state_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{self.state_file}: damaged ({error}); choose another --out") from None
        if not isinstance(state, dict) or "phases" not in state:
            raise DataError(f"{self.state_file}: not the state of a run; choose another --out")
        if state.get("layout", 1) > LAYOUT:
            raise ConfigError(
                f"{self.root}: made by a newer version of this package; update it, or choose another --out"
            )
        return state


def _source(files: UnitFiles, name: str) -> Source:
    """A file that the manifest lists.

    Raises:
        DataError: If it is not there.
    """
    source = files.find(name)
    if source is None:
        raise DataError(f"{files.place}/{name}: cannot be read (it is gone); run verify to see what else is damaged")
    return source
