"""A run on a store: its units and tables there, and the working folder that is a cache of them.

In: committed units and merged tables of a working folder. Out: objects, and files fetched when they are needed.

    URL/run.json                       who holds the run, and which files are its own (`head`)
    URL/files/<name>.<digest>          plans, manifests of tables, replies of models, each under its content (`mirror`)
    URL/units/<phase>/<id>-<made of>   one work unit: a zip of its files, the manifest last
    URL/pairs/part-00000-<digest>.parquet, ...   merged tables
    URL/README.md, recipe.resolved.yaml          for people

The decision a reader would question: a unit's key holds a digest of everything that decides its content, and it is put
only where there is none. So whoever is first is right, and a worker that wakes up late can do no harm: either its key
is taken, or what it puts is what anybody would have put there. One thing is overwritten, a unit with failures that is
tried again, and only as long as it is the one that this folder knows.
"""

import io
import json
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from fineinstructions.config import digest
from fineinstructions.errors import BackendError, ConfigError, DataError
from fineinstructions.runs.container import Container, Member, Stored, write_container
from fineinstructions.runs.durable import beside, sha256_file
from fineinstructions.runs.files import FolderFiles, read_manifest
from fineinstructions.runs.ledger import MANIFEST, FileEntry, Manifest, parse_manifest
from fineinstructions.runs.specs import UnitSpec
from fineinstructions.stores import Conflict, Objects, open_objects

if TYPE_CHECKING:
    from fineinstructions.runs.head import StoreLease

MARK = "store.json"
"""File that makes a folder the working folder of a run on a store, and says which."""
THREADS = 8
"""Objects that a process reads or writes at once. Ours."""
TAIL_BYTES = 32 << 10
"""Read from the end of a unit's object, so that nearly every manifest takes one request."""
INCOMING = "incoming"
"""Where parts of tables wait until all of them are there."""


class RunStore:
    """The store of one run, as one process sees it; threads may share it.

    Args:
        url: Where the run lies.
        root: The working folder.
    """

    def __init__(self, url: str, root: Path) -> None:
        self.url, self.root = url, root
        self.objects: Objects = open_objects(url)
        self.lease: StoreLease | None = None
        """Held by the driver; ``None`` in any other process."""

    def require_lease(self) -> None:
        """Refuse to go on where this process held the run and has lost it.

        Raises:
            BackendError: If it has.
        """
        if self.lease is not None:
            self.lease.require()

    def commit(self, folder: Path, phase: str, spec: UnitSpec, manifest: Manifest) -> Manifest:
        """Make a unit part of the run, before it becomes part of the working folder.

        Args:
            folder: Its files; replaced by those of another worker that was sooner.
            phase: Its phase.
            spec: The unit.
            manifest: What it says about itself.

        Returns:
            The manifest that holds.

        Raises:
            BackendError: If the store cannot be reached, or the run is lost.
            DataError: If what another worker put there is damaged.
        """
        self.require_lease()
        key = unit_key(phase, spec.unit_id, manifest.digest, manifest.inputs)
        packed, before = beside(folder), self.root / "units" / phase / spec.folder_name
        members = [Member(entry.name, folder / entry.name, entry.sha256) for entry in manifest.files]
        try:
            with packed.open("wb") as target:
                write_container(target, [*members, Member(MANIFEST, manifest.text.encode())])
            self.objects.put_new(key, packed)
        except Conflict:
            if not self._replace(key, packed, before):
                return self._take(key, folder, packed, manifest)
        finally:
            packed.unlink(missing_ok=True)
        return manifest

    def _replace(self, key: str, packed: Path, before: Path) -> bool:
        """Put a unit that was tried again in place of the one with failures; false where another stands there by now.

        Args:
            key: Its key.
            packed: The new unit.
            before: Folder of the unit as it is known here.
        """
        known, found = read_manifest(FolderFiles(before)), self.objects.read_with_version(key)
        if known is None or not known.has_failures or found is None:
            return False
        with suppress(DataError):  # one that is damaged may go
            name = f"{self.url}/{key}"
            if parse_manifest(Container(partial(io.BytesIO, found[0]), name).last(), name).seal != known.seal:
                return False
        (before / MANIFEST).unlink(missing_ok=True)  # it is not known any more which one the store has
        try:
            self.objects.replace(key, packed, found[1])
        except Conflict:
            return False
        return True

    def _take(self, key: str, folder: Path, packed: Path, mine: Manifest) -> Manifest:
        """Another worker's unit in place of one's own, because others may have read it already."""
        self._fetch(key, packed)
        container = Container.at(packed)
        theirs = parse_manifest(container.last(), f"{self.url}/{key}")
        if theirs.seal == mine.seal:
            return mine
        shutil.rmtree(folder)
        folder.mkdir()
        self._unpack(container.members, key, folder, theirs.files)
        return theirs

    def manifest(self, key: str, num_bytes: int) -> Manifest:
        """Manifest of a unit's object, without the rest of it.

        Args:
            key: The object.
            num_bytes: Its size.

        Raises:
            DataError: If it is damaged.
        """
        name = f"{self.url}/{key}"
        opener = partial(_open_ranged, self.objects, key, num_bytes)
        return parse_manifest(Container(opener, name).last(), name)

    def fetch_unit(self, phase: str, spec: UnitSpec, folder: Path) -> None:
        """Fetch the files of a committed unit that are not here, and compare each with its digest.

        Raises:
            DataError: If the object is gone or damaged.
        """
        manifest = read_manifest(FolderFiles(folder))
        wanted = [entry for entry in manifest.files if not _is_here(folder, entry)] if manifest else []
        if manifest is None or not wanted:
            return
        key = unit_key(phase, spec.unit_id, manifest.digest, manifest.inputs)
        packed = beside(folder)
        try:
            self._fetch(key, packed)
            self._unpack(Container.at(packed).members, key, folder, wanted)
        finally:
            packed.unlink(missing_ok=True)

    def _fetch(self, key: str, path: Path) -> None:
        try:
            self.objects.fetch(key, path)
        except FileNotFoundError:
            raise DataError(f"{self.url}/{key}: is gone; run again") from None

    def _unpack(self, members: dict[str, Stored], key: str, folder: Path, entries: Iterable[FileEntry]) -> None:
        for entry in entries:
            stored = members.get(entry.name)
            if stored is None:
                raise DataError(f"{self.url}/{key}: {entry.name} is missing; delete the object and run again")
            with stored.open() as source:
                self._place(source, folder, entry, key)

    def _place(self, source: IO[bytes], folder: Path, entry: FileEntry, key: str) -> None:
        """Put a file into a folder, once it is whole."""
        target = folder / entry.name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = beside(target)
        try:
            with temporary.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            if sha256_file(temporary) != entry.sha256:
                raise DataError(
                    f"{self.url}/{key}: {entry.name} does not have the content that was committed; delete the object"
                    " and run again"
                )
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def ahead(self, phase: str, specs: Iterable[UnitSpec], units: Path) -> Iterator[UnitSpec]:
        """The same units, each once its files are here; the next ones are on their way.

        Args:
            phase: Their phase.
            specs: The units, in order.
            units: Folder of the phase's units.
        """
        coming: deque[tuple[UnitSpec, Future[None]]] = deque()
        threads = ThreadPoolExecutor(THREADS)
        try:
            for spec in specs:
                coming.append((spec, threads.submit(self.fetch_unit, phase, spec, units / spec.folder_name)))
                if len(coming) > 2 * THREADS:
                    yield _arrived(*coming.popleft())
            while coming:
                yield _arrived(*coming.popleft())
        finally:
            threads.shutdown(cancel_futures=True)

    def publish_table(self, name: str, folder: Path, manifest: Manifest) -> None:
        """Put a merged table in place of an older one.

        All new parts are in the store before the first old one goes. Whoever lists the folder in that moment sees old
        parts or new ones, some or all of them, but never both.

        Args:
            name: Its name.
            folder: Its parts.
            manifest: What they are.
        """
        self.require_lease()
        parts = {part_key(name, entry): folder / entry.name for entry in manifest.files}
        there = {entry.key for entry in self.objects.list(f"{name}/")}
        waiting = {entry.key: entry.num_bytes for entry in self.objects.list(f"{INCOMING}/{name}/")}
        missing = [key for key in parts if key not in there]
        sent = [key for key in missing if waiting.get(f"{INCOMING}/{key}") != parts[key].stat().st_size]
        self.for_each(lambda key: self.objects.put(f"{INCOMING}/{key}", parts[key]), sent)
        self.require_lease()
        self.objects.delete(sorted(there - parts.keys()))
        self.for_each(lambda key: self.objects.copy(f"{INCOMING}/{key}", key), missing)
        self.objects.delete(sorted({f"{INCOMING}/{key}" for key in missing} | waiting.keys()))

    def for_each(self, do: Any, items: Iterable[Any]) -> list[Any]:
        """What a function gives for each of some items, several at a time."""
        with ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(do, items))

    def has_table(self, name: str, manifest: Manifest) -> bool:
        """Whether a merged table lies in the store, and nothing else under its name."""
        there = {entry.key for entry in self.objects.list(f"{name}/")}
        return there == {part_key(name, entry) for entry in manifest.files}

    def fetch_table(self, name: str, folder: Path, manifest: Manifest) -> None:
        """Fetch the parts of a merged table that are not here.

        Raises:
            DataError: If one is damaged.
            BackendError: If the table is being replaced.
        """
        folder.mkdir(exist_ok=True)

        def fetch(entry: FileEntry) -> None:
            key, packed = part_key(name, entry), beside(folder)
            try:
                self.objects.fetch(key, packed)
                with packed.open("rb") as source:
                    self._place(source, folder, entry, key)
            except FileNotFoundError:
                line = f"{self.url}/{key}: is gone; the table {name} is being replaced, or a part was deleted"
                raise BackendError(line, hint="look again, or run again") from None
            finally:
                packed.unlink(missing_ok=True)

        self.for_each(fetch, [entry for entry in manifest.files if not _is_here(folder, entry)])


_OPEN: dict[Path, RunStore] = {}
"""Stores of this process, by working folder."""


def store_of(root: Path) -> RunStore | None:
    """The store that a folder is the working folder of; ``None`` for a run folder.

    Raises:
        ConfigError: If the store cannot be opened.
        DataError: If the folder does not say which it is.
    """
    path = root / MARK
    if not path.exists():
        return None
    if root not in _OPEN:
        try:
            url = str(json.loads(path.read_text(encoding="utf-8"))["url"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: damaged ({error}); delete the folder {root}, which is a cache only") from None
        _OPEN[root] = RunStore(url, root)
    return _OPEN[root]


def place_of(root: Path) -> str:
    """What a user calls a run, given the folder where its files are worked on: its URL or the folder."""
    store = store_of(root)
    return store.url if store else str(root)


def unit_key(phase: str, unit_id: str, made_by: str, inputs: str) -> str:
    """Key of a unit's object.

    Args:
        phase: Its phase.
        unit_id: Its id.
        made_by: Digest of what decides the bytes of the phase.
        inputs: Digest of the seals of the upstream units.
    """
    return f"units/{phase}/{unit_id}-{digest(made_by, inputs)[:16]}.zip"


def part_key(name: str, entry: FileEntry) -> str:
    """Key of a part of a merged table: the same name for the same content only."""
    stem, dot, extension = entry.name.rpartition(".")
    return f"{name}/{stem}-{entry.sha256[:12]}{dot}{extension}"


def _arrived(spec: UnitSpec, fetched: "Future[None]") -> UnitSpec:
    with suppress(DataError):  # whoever reads the unit fetches again, and hears of it
        fetched.result()
    return spec


def _is_here(folder: Path, entry: FileEntry) -> bool:
    path = folder / entry.name
    return path.is_file() and path.stat().st_size == entry.num_bytes


def _open_ranged(objects: Objects, key: str, num_bytes: int) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Ranged(objects, key, num_bytes), TAIL_BYTES))


class _Ranged(io.RawIOBase):
    """An object as a file that is read in pieces; its end is read once."""

    def __init__(self, objects: Objects, key: str, num_bytes: int) -> None:
        self._objects, self._key, self._size, self._position = objects, key, num_bytes, 0
        self._tail_start = max(0, num_bytes - TAIL_BYTES)
        self._tail: bytes | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(0, {0: 0, 1: self._position, 2: self._size}[whence] + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        block = self._bytes(self._position, min(self._size, self._position + len(buffer)))
        buffer[: len(block)] = block
        self._position += len(block)
        return len(block)

    def _bytes(self, start: int, stop: int) -> bytes:
        if start >= stop:
            return b""
        try:
            if start < self._tail_start:
                return self._objects.read(self._key, start, stop)
            if self._tail is None:
                self._tail = self._objects.read(self._key, self._tail_start, self._size)
        except FileNotFoundError:
            raise ConfigError(f"{self._objects.url}/{self._key}: went away while it was read; try again") from None
        return self._tail[start - self._tail_start : stop - self._tail_start]
