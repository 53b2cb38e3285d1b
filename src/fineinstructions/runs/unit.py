"""One open work unit: reads what it needs, counts what passes, files what is turned away, commits all or nothing.

Nothing of an open unit is visible in its final place. `Unit.commit` checks the accounts, renames the folder into place
and then the manifest; a unit without manifest does not exist. Rejections go to one file per stage, because operators
that ask a model run ahead of each other and one common file would depend on timing.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from fineinstructions.backends.meter import Meter
from fineinstructions.errors import DataError, PendingError, counted
from fineinstructions.records import PENDING, Rejection, from_table
from fineinstructions.runs.durable import beside, replace_folder
from fineinstructions.runs.layout import REJECTED_PREFIX, Layout
from fineinstructions.runs.ledger import Manifest, StageAccount, list_files
from fineinstructions.runs.remote import store_of
from fineinstructions.runs.specs import UnitSpec
from fineinstructions.runs.tables import TableWriter, read_table, table_name

T = TypeVar("T")
R = TypeVar("R")


class Unit:
    """A work unit in the hands of a work function. Used by one thread; the engine opens, commits and closes it.

    Args:
        layout: The run folder.
        phase: Name of the phase.
        spec: What to work on.
        digest: Digest of what decides the phase's bytes.
        inputs: Digest of the seals of the upstream units.
    """

    def __init__(self, layout: Layout, phase: str, spec: UnitSpec, *, digest: str, inputs: str) -> None:
        self.layout = layout
        self.phase = phase
        self.spec = spec
        self.folder = beside(layout.unit_folder(phase, spec))
        """Where the unit's files lie until the commit; a work function may write files and folders of its own here."""
        self._digest, self._inputs = digest, inputs
        self._stages: dict[str, StageAccount] = {}
        self._unfinished: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._meters: dict[str, Meter] = {}
        self._writers: dict[str, TableWriter[Any]] = {}
        self.folder.mkdir(parents=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def rows(self, record_type: type[R]) -> Iterator[R]:
        """Rows of the unit's own range of its input file, for input that this package wrote.

        Raises:
            DataError: If the file is missing or corrupt.
        """
        return read_table(Path(self.spec.path), record_type, self.spec.row_start, self.spec.row_stop)

    def read(self, record_type: type[R], *, phase: str, name: str | None = None) -> Iterator[R]:
        """What an upstream phase wrote for this very unit; nothing where that unit was set aside.

        Args:
            record_type: Type of the records.
            phase: Upstream phase, planned over the same units.
            name: Table name where it is not the record type's.

        Raises:
            DataError: If the upstream unit is not committed or damaged.
        """
        return self.layout.unit_records(phase, self.spec, record_type, name)

    def read_all(self, record_type: type[R], *, phase: str, name: str | None = None) -> Iterator[R]:
        """What an upstream phase wrote, all units in plan order; otherwise like `read`."""
        return self.layout.records(phase, record_type, name)

    def groups(self, phase: str, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Like `read`, as Arrow tables: for work on whole columns.

        Raises:
            DataError: If the upstream unit is not committed or damaged.
        """
        return self.layout.unit_groups(phase, self.spec, name, columns)

    def all_groups(self, phase: str, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Like `read_all`, as Arrow tables; otherwise like `groups`."""
        for spec in self.layout.ahead(phase):
            yield from self.layout.unit_groups(phase, spec, name, columns)

    def keep(self, stage: str, items: Iterable[R | Rejection]) -> Iterator[R]:
        """Good records of a source that has no input records (a reader); files the rejections.

        Args:
            stage: Name of the stage; equals `Rejection.stage`.
            items: One item per row that was read.
        """
        account = self._open_stage(stage)
        return self._sort_out(stage, account, items, counts_in=True)

    def through(
        self,
        stage: str,
        inputs: Iterable[T],
        operator: Callable[[Iterator[T]], Iterable[R | Rejection]],
        stands_for: Callable[[R], int] | None = None,
    ) -> Iterator[R]:
        """Good records of an operator; counts what goes in and out and files the rejections.

        Args:
            stage: Name of the stage; equals `Rejection.stage`.
            inputs: Records that enter.
            operator: Turns an iterator of inputs into one item per input; it may run ahead.
            stands_for: How many inputs an output stands for, where records are merged; else each stands for one.

        Returns:
            A lazy stream. It has to be read to its end before `commit`.

        Raises:
            DataError: While reading, if the operator leaves inputs unread or its items do not add up.
        """
        account = self._open_stage(stage)

        def counted() -> Iterator[T]:
            for item in inputs:
                account.num_in += 1
                yield item

        entering = counted()
        return self._sort_out(stage, account, operator(entering), entering=entering, stands_for=stands_for)

    def sift(
        self,
        stage: str,
        tables: Iterable[pa.Table],
        is_good: Callable[[pa.Table], Sequence[bool]],
        why: Callable[[Iterator[R]], Iterable[R | Rejection]],
        record_type: type[R],
    ) -> Iterator[pa.Table]:
        """Like `through`, for an operator that lets records pass as they are: only what it turns away is made a record.

        Args:
            stage: Name of the stage.
            tables: Rows that enter.
            is_good: Which rows of a table pass.
            why: The operator, which gives a rejection for every other row.
            record_type: Type of the rows.

        Returns:
            A lazy stream of tables. It has to be read to its end before `commit`.

        Raises:
            DataError: While reading, if the operator lets a row pass that is not good.
        """
        account = self._open_stage(stage)
        for table in tables:
            good = pa.array(is_good(table), pa.bool_())
            account.num_in += table.num_rows
            account.num_out += good.true_count
            for item in why(from_table(table.filter(pc.invert(good)), record_type)):
                if not isinstance(item, Rejection):
                    raise DataError(f"stage {stage!r} lets a record pass that is not good")
                self._file(stage, account, item)
            yield table.filter(good)
        self._unfinished[stage] -= 1

    def _open_stage(self, stage: str) -> StageAccount:
        self._unfinished[stage] += 1
        return self._stages.setdefault(stage, StageAccount())

    def _sort_out(
        self,
        stage: str,
        account: StageAccount,
        items: Iterable[R | Rejection],
        *,
        counts_in: bool = False,
        entering: Iterator[Any] | None = None,
        stands_for: Callable[[R], int] | None = None,
    ) -> Iterator[R]:
        for item in items:
            account.num_in += counts_in
            if isinstance(item, Rejection):
                self._file(stage, account, item)
                continue
            account.num_out += 1
            account.num_merged += stands_for(item) - 1 if stands_for else 0
            yield item
        if entering is not None:
            unread = sum(1 for _ in entering)
            if unread:
                raise DataError(f"stage {stage!r} stopped before {unread} of its {account.num_in} records were read")
        self._unfinished[stage] -= 1

    def _file(self, stage: str, account: StageAccount, rejection: Rejection) -> None:
        if rejection.stage != stage:
            raise DataError(f"a rejection of stage {rejection.stage!r} came out of stage {stage!r}: {rejection.reason}")
        reasons = account.failed if rejection.failed else account.rejected
        reasons[rejection.reason] = reasons.get(rejection.reason, 0) + 1
        name = f"{REJECTED_PREFIX}{stage}"
        writer = self._writers.get(name) or self.writer(Rejection, name)
        writer.add(rejection)

    def count(self, name: str, number: int = 1) -> None:
        """Add to an extra figure of the unit (candidates, calls, tokens)."""
        self._counts[name] += number

    def meter(self, stage: str) -> Meter:
        """What counts the questions that a stage asks language models; `commit` keeps the counts."""
        return self._meters.setdefault(stage, Meter())

    @property
    def model_seconds(self) -> dict[str, float]:
        """Seconds from requests to their replies, by stage; not the same twice, so no part of the manifest."""
        return {stage: round(meter.seconds, 3) for stage, meter in self._meters.items() if meter.seconds}

    def writer(self, record_type: type[R], name: str | None = None) -> TableWriter[R]:
        """Table that records are added to one by one; closed by `commit`.

        Raises:
            ValueError: If the unit already has a table of that name.
        """
        name = name or table_name(record_type)
        if name in self._writers:
            raise ValueError(f"the unit already has a table {name!r}")
        writer = TableWriter(self.folder / f"{name}.parquet", record_type)
        self._writers[name] = writer
        return writer

    def write(self, records: Iterable[R], record_type: type[R], name: str | None = None) -> int:
        """Read a stream to its end into a table of the unit.

        Args:
            records: Records in order; streamed.
            record_type: Their type.
            name: Table name where it should not be the record type's.

        Returns:
            How many records there were.
        """
        writer = self.writer(record_type, name)
        number = 0
        for record in records:
            writer.add(record)
            number += 1
        return number

    def write_tables(self, tables: Iterable[pa.Table], record_type: type[R]) -> None:
        """Like `write`, for rows that are tables already; the same rows give the same file."""
        writer = self.writer(record_type)
        for table in tables:
            left = table
            while left.num_rows:
                left = left.slice(writer.add_front(left, left.num_rows))

    def commit(self, *, set_aside: str = "") -> Manifest:
        """Check the accounts and make the unit done.

        Args:
            set_aside: Why the unit is given up; empty for good work.

        Returns:
            The manifest that is now in place.

        Raises:
            DataError: If a stage was not read to its end or lost a record.
            PendingError: If records wait for answers to their questions.
        """
        num_pending = sum(account.failed.get(PENDING, 0) for account in self._stages.values())
        if num_pending:
            raise PendingError(f"unit {self.spec.folder_name}: {counted(num_pending, 'record')} without an answer")
        for stage, account in self._stages.items():
            if self._unfinished[stage]:
                raise DataError(f"stage {stage!r} was not read to its end; commit only after its last record")
            if account.num_missing:
                raise DataError(
                    f"stage {stage!r} does not add up: {account.num_in} in, {account.num_out} out, {account.num_merged}"
                    f" merged, {account.num_turned_away} turned away, {account.num_missing} unaccounted for"
                )
        for writer in self._writers.values():
            writer.close()
        for stage, meter in self._meters.items():
            self._counts.update({f"{stage}.{name}": number for name, number in meter.counts.items()})
        rows = {writer.path.name: writer.num_rows for writer in self._writers.values()}
        self._writers.clear()
        files = list_files(self.folder, rows)
        manifest = Manifest(
            phase=self.phase,
            unit_id=self.spec.unit_id,
            digest=self._digest,
            inputs=self._inputs,
            stages=self._stages,
            counts=dict(sorted(self._counts.items())),
            files=files,
            set_aside=set_aside,
        )
        if store := store_of(self.layout.root):
            manifest = store.commit(self.folder, self.phase, self.spec, manifest)
        final = self.layout.unit_folder(self.phase, self.spec)
        replace_folder(self.folder, final)
        manifest.save(final)
        return manifest

    def close(self) -> None:
        """Drop whatever was not committed."""
        for writer in self._writers.values():
            writer.abandon()
        self._writers.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
