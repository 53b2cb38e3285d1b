"""Where things lie in a run folder, and how committed work is found and read back."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import yaml

from fineinstructions.config import digest
from fineinstructions.errors import DataError
from fineinstructions.records import Rejection
from fineinstructions.runs.durable import write_text
from fineinstructions.runs.ledger import Manifest, load_manifest
from fineinstructions.runs.plan import UnitSpec
from fineinstructions.runs.tables import read_groups, read_table, table_name

R = TypeVar("R")

REJECTED_PREFIX = "rejected-"


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
        """Folder of one committed unit."""
        return self.units(phase) / spec.folder_name

    def plan_file(self, phase: str) -> Path:
        """Unit list of a phase."""
        return self.root / "plan" / f"{phase}.json"

    def published_folder(self, name: str) -> Path:
        """Folder of the manifest of a published table."""
        return self.root / "plan" / "published" / name

    def save_plan(self, phase: str, specs: list[UnitSpec]) -> None:
        """Store a phase's unit list."""
        write_text(self.plan_file(phase), json.dumps([dataclasses.astuple(spec) for spec in specs]) + "\n")

    def planned(self, phase: str) -> list[UnitSpec] | None:
        """Unit list of a phase; ``None`` where the phase has not been planned yet.

        Raises:
            DataError: If the list is damaged.
        """
        path = self.plan_file(phase)
        try:
            return [UnitSpec(*values) for values in json.loads(path.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}: damaged unit list ({error}); delete the file and run again") from None

    def manifest(self, phase: str, spec: UnitSpec) -> Manifest | None:
        """Manifest of a unit, ``None`` where it has not been committed.

        Raises:
            DataError: If the manifest is torn.
        """
        return load_manifest(self.unit_folder(phase, spec))

    def content(self, phase: str) -> str:
        """Digest of what all units of a phase hold, in plan order.

        Raises:
            DataError: If the phase is not complete.
        """
        seals = []
        for spec in self.planned(phase) or ():
            manifest = self.manifest(phase, spec)
            if manifest is None:
                raise DataError(
                    f"{self.unit_folder(phase, spec)}: not committed yet, but phase {phase!r} is needed whole"
                )
            seals.append(manifest.seal)
        return digest(seals)

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
        for path in self._unit_tables(phase, spec, name or table_name(record_type)):
            yield from read_table(path, record_type)

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
        for path in self._unit_tables(phase, spec, name):
            yield from read_groups(path, columns)

    def _unit_tables(self, phase: str, spec: UnitSpec, name: str) -> Iterator[Path]:
        """Path of a unit's table; nothing where the unit was set aside."""
        folder = self.unit_folder(phase, spec)
        manifest = load_manifest(folder)
        if manifest is None:
            raise DataError(f"{folder}: not committed, but its records are needed; run again to make it")
        if manifest.set_aside:
            return
        if f"{name}.parquet" not in {entry.name for entry in manifest.files}:
            raise DataError(f"{folder}: has no {name}.parquet; phase {phase!r} does not write that table")
        yield folder / f"{name}.parquet"

    def records(self, phase: str, record_type: type[R], name: str | None = None) -> Iterator[R]:
        """Records of all units of a phase in plan order; see `unit_records`."""
        for spec in self.planned(phase) or ():
            yield from self.unit_records(phase, spec, record_type, name)

    def rejections(self, *phases: str) -> Iterator[Rejection]:
        """Rejections of the phases' units: by phase, unit and stage, each in record order."""
        for phase in phases:
            for spec in self.planned(phase) or ():
                yield from self.unit_rejections(phase, spec)

    def unit_rejections(self, phase: str, spec: UnitSpec) -> Iterator[Rejection]:
        """Rejections of one unit, by stage, each in record order."""
        manifest = self.manifest(phase, spec)
        known = {entry.name for entry in manifest.files} if manifest else set()
        for stage in manifest.stages if manifest else ():
            if f"{REJECTED_PREFIX}{stage}.parquet" in known:
                yield from read_table(self.unit_folder(phase, spec) / f"{REJECTED_PREFIX}{stage}.parquet", Rejection)

    def published(self, name: str) -> Manifest | None:
        """Manifest of a published table, ``None`` where there is none or it is torn."""
        try:
            return load_manifest(self.published_folder(name))
        except DataError:
            return None

    def published_records(self, name: str, record_type: type[R]) -> Iterator[R]:
        """Records of a published table (``pairs``, ``matches``, ...) in order."""
        manifest = self.published(name)
        for entry in manifest.files if manifest else ():
            yield from read_table(self.root / name / entry.name, record_type)

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
        return state
