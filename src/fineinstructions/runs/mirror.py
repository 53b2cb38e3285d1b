"""Brings a working folder in line with its store, and the store's small files in line with the folder.

In: the working folder of a run on a store. Out: the same folder with the plans, manifests and replies that the store
has and nothing that it has not; files of units and tables come when they are read (`remote`).

The decision a reader would question: manifests are read again, one by one, whenever another machine may have worked on
the run since. A folder that was the last to hold it believes what it has.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fineinstructions.errors import DataError, FineInstructionsError
from fineinstructions.runs.durable import TEMPORARY_PREFIX, beside, write_text
from fineinstructions.runs.head import Head, StoreLease, read_head
from fineinstructions.runs.lease import lease_holder, lease_token
from fineinstructions.runs.ledger import Manifest
from fineinstructions.runs.remote import INCOMING, MARK, RunStore, store_of, unit_key
from fineinstructions.runs.specs import WHOLE_CORPUS, UnitSpec
from fineinstructions.runs.undone import inputs_of

if TYPE_CHECKING:
    from fineinstructions.runs.folder import RunFolder

LOCK = "store.lock"
"""Lock of a working folder while it is brought in line."""
KEPT = ("*.yaml", "*.json", "*.md", "plan/**/*", "cache/*.jsonl")
"""Files of a working folder that the store has too."""
FOR_PEOPLE = ("README.md", "recipe.resolved.yaml")
"""Those that lie there under their own names besides."""
ADDED_ONLY = "cache/"
"""Those that a folder may have more of than the store."""


@dataclass
class Mark:
    """What a working folder knows about its store."""

    url: str
    held: str = ""
    """Token under which this folder held the run last."""
    seen: str = ""
    """Token under which somebody had given the run back when this folder was brought in line."""
    files: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Digest, size and modification time of the files that are as in the store."""

    @classmethod
    def load(cls, root: Path) -> "Mark":
        """What a folder knows."""
        plain = json.loads((root / MARK).read_text(encoding="utf-8"))
        plain["files"] = {name: tuple(facts) for name, facts in plain.get("files", {}).items()}
        return cls(**plain)

    def save(self, root: Path) -> None:
        """Store it in the folder."""
        write_text(root / MARK, json.dumps(asdict(self), indent=1) + "\n")


@contextlib.contextmanager
def held(run: "RunFolder", note: Callable[[str], None], seconds: float) -> Iterator[None]:
    """Hold a run on its store alone, with the working folder in line; nothing to do for a run in a folder.

    Args:
        run: The run; the lock of its folder is held.
        note: Told what is waited for.
        seconds: How long this driver may be silent until another may take over.

    Raises:
        ConfigError: If another driver holds the run.
        BackendError: If the run was lost on the way.
    """
    store = store_of(run.root)
    if store is None:
        yield
        return
    mark, token = Mark.load(run.root), lease_token(run.lease_file)

    def bar_workers() -> None:
        os.truncate(run.lease_file, 0)

    with StoreLease(store.objects, token, mark.held, seconds, note, bar_workers) as lease:
        store.lease = lease
        try:
            with _locked(run.root):
                pull(store, lease.found, type(run).open)
                mark = Mark.load(run.root)
                mark.held, mark.seen = token, ""
                mark.save(run.root)
            yield
            push(store)
            _sweep(store, lease, run)
        except BaseException:
            with contextlib.suppress(FineInstructionsError):
                push(store)
            lease.require()
            raise
        finally:
            store.lease = None


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Keep others from bringing the same folder in line."""
    with (root / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def look(root: Path, reopen: "Callable[[Path], RunFolder]", *, with_units: bool = True) -> None:
    """Bring a working folder in line without holding the run; a folder that a driver works in is left alone.

    Raises:
        ConfigError: If the store cannot be read.
    """
    store = store_of(root)
    if store is None:
        return
    with _locked(root):
        if not lease_holder(root / "lease"):
            found = read_head(store.objects)
            if found is None:
                next(store.objects.list(), None)  # tells a bucket that is not there from one without this run
            while True:
                try:
                    pull(store, found[0] if found else None, reopen, with_units=with_units)
                    return
                except DataError:  # its driver may have put other files in place since, and deleted those
                    later = read_head(store.objects)
                    if later is None or found is None or later[0].files == found[0].files:
                        raise
                    found = later


def holder(root: Path) -> str:
    """Who holds a run on its store, as far as is known; empty where nobody does, and for a run in a folder."""
    store = store_of(root)
    found = read_head(store.objects) if store else None
    return found[0].holder if found and found[0].held else ""


def pull(store: RunStore, head: Head | None, reopen: "Callable[[Path], RunFolder]", *, with_units: bool = True) -> None:
    """Bring a working folder in line.

    Args:
        store: The store.
        head: What it says about the run, before this driver took it over; ``None`` where it holds none.
        reopen: Opens the run as its folder has it.
        with_units: Whether the manifests of units are looked at too.
    """
    mark = Mark.load(store.root)
    is_believed = head is not None and head.token in (mark.held, mark.seen) and head.token != ""
    _pull_files(store, head.files if head else {}, mark)
    mark.save(store.root)
    if not (store.root / "plan" / "run.json").exists():
        shutil.rmtree(store.root / "units", ignore_errors=True)
    elif with_units:
        pull_units(store, reopen(store.root), is_believed=is_believed)
        mark.seen = head.token if head and not head.held else ""
        mark.save(store.root)


def kept_files(root: Path) -> dict[str, Path]:
    """Files of a working folder that the store has too, by name."""
    found = (path for pattern in KEPT for path in root.glob(pattern) if path.is_file())
    names = {path.relative_to(root).as_posix(): path for path in found}
    return {n: p for n, p in sorted(names.items()) if n != MARK and not p.name.startswith(TEMPORARY_PREFIX)}


def file_key(name: str, content: str) -> str:
    """Key of one of those files.

    Args:
        name: Its name.
        content: Digest of its content.
    """
    return f"files/{name}.{content}"


def _facts(content: str, path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return content, state.st_size, state.st_mtime_ns


def _pull_files(store: RunStore, wanted: dict[str, str], mark: Mark) -> None:
    root = store.root
    changed: list[str] = []
    for name, path in kept_files(root).items():
        if name not in wanted and not name.startswith(ADDED_ONLY):
            path.unlink()
            changed.append(name)

    def fetch(name: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.name}")
        try:
            store.objects.fetch(file_key(name, wanted[name]), temporary)
        except FileNotFoundError:
            raise DataError(f"{store.url}/{file_key(name, wanted[name])}: is gone; the run is damaged") from None
        if _digest(temporary) != wanted[name]:
            raise DataError(
                f"{store.url}/{file_key(name, wanted[name])}: does not have its content; the run is damaged"
            )
        temporary.replace(path)

    missing = [name for name, content in wanted.items() if not _is_same(root / name, content, mark.files.get(name))]
    missing = [name for name in missing if not (name.startswith(ADDED_ONLY) and (root / name).exists())]
    store.for_each(fetch, missing)
    for name in (*changed, *missing):
        parts = name.split("/")
        if parts[:2] == ["plan", "published"]:
            shutil.rmtree(root / parts[2], ignore_errors=True)  # parts of a table as it was
    mark.files = {name: known for name, known in mark.files.items() if _is_same(root / name, wanted.get(name), known)}
    mark.files |= {name: _facts(wanted[name], root / name) for name in missing}


def _is_same(path: Path, content: str | None, known: tuple[str, int, int] | None) -> bool:
    """Whether a file is as it was when it had this content."""
    return content is not None and path.is_file() and known == _facts(content, path)


def push(store: RunStore) -> None:
    """Give the store what changed in the small files of the working folder.

    Raises:
        BackendError: If the run is lost, or the store cannot be reached.
    """
    lease = store.lease
    if lease is None:
        return
    lease.require()
    mark = Mark.load(store.root)
    files: dict[str, tuple[str, int, int]] = {}
    for name, path in kept_files(store.root).items():
        known = mark.files.get(name)
        if known is None or known != _facts(known[0], path):
            known = _send(store, name, path, lease.files.get(name))
        files[name] = known
    named = {name: facts[0] for name, facts in files.items()}
    if named != lease.files:
        lease.name_files(named)
    if files != mark.files:
        mark.files = files
        mark.save(store.root)


def _send(store: RunStore, name: str, path: Path, there: str | None) -> tuple[str, int, int]:
    """Give the store one file as it is at one moment, because workers may write to it; gives its facts.

    Args:
        store: The store.
        name: Its name.
        path: The file.
        there: Digest of the content that the store has.
    """
    state, copy = path.stat(), beside(store.root / path.name)
    try:
        shutil.copyfile(path, copy)
        content = _digest(copy)
        if content != there:
            store.objects.put(file_key(name, content), copy)
            if name in FOR_PEOPLE:
                store.objects.put(name, copy)
    finally:
        copy.unlink(missing_ok=True)
    return content, state.st_size, state.st_mtime_ns


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()[:16]


def pull_units(store: RunStore, run: "RunFolder", *, is_believed: bool) -> None:
    """Bring the manifests of all units in line; a unit that the store has not goes.

    Args:
        store: The store.
        run: The run, as its folder has it.
        is_believed: Whether manifests that are here need not be read again.
    """
    contents: dict[str, str] = {}
    for phase in run.phases:
        there = {entry.key: entry.num_bytes for entry in store.objects.list(f"units/{phase.name}/")}
        wanted: list[tuple[Path, str, Manifest | None]] = []
        known: set[str] = set()
        for spec in run.planned(phase.name) or ():
            folder, key = run.unit_folder(phase.name, spec), _key(run, phase.name, spec, contents)
            here = _manifest(run, phase.name, spec)
            if key not in there:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            known.add(folder.name)
            is_same = here is not None and key == unit_key(phase.name, spec.unit_id, here.digest, here.inputs)
            if not (is_same and is_believed):
                wanted.append((folder, key, here))

        def fetch(item: tuple[Path, str, Manifest | None], there: dict[str, int] = there) -> None:
            folder, key, here = item
            try:
                manifest = store.manifest(key, there[key])
            except DataError:  # a unit that is damaged is none: who holds the run makes it again
                shutil.rmtree(folder, ignore_errors=True)
                if store.lease is not None:
                    store.objects.delete([key])
                return
            if here is None or here.seal != manifest.seal:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                manifest.save(folder)

        store.for_each(fetch, wanted)
        units = run.units(phase.name)
        for path in units.iterdir() if units.exists() else ():
            if path.is_dir() and path.name not in known:
                shutil.rmtree(path, ignore_errors=True)


def _key(run: "RunFolder", phase: str, spec: UnitSpec, contents: dict[str, str]) -> str:
    """Key of a unit as the present recipe and upstream units make it; empty while those are not all there."""
    seals: list[str] = []
    for upstream in run.phase(phase).upstream:
        same = _manifest(run, upstream, spec)
        if same is None and upstream not in contents:
            try:
                contents[upstream] = run.content(upstream)
            except DataError:
                contents[upstream] = ""
        seals.append(same.seal if same else contents[upstream])
    return unit_key(phase, spec.unit_id, run.digest(phase), inputs_of(seals)) if all(seals) else ""


def _manifest(run: "RunFolder", phase: str, spec: UnitSpec) -> Manifest | None:
    try:
        return run.manifest(phase, spec)
    except DataError:
        return None


def before_units(run: "RunFolder", phase: str, todo: Sequence[UnitSpec]) -> None:
    """Make ready for the units of a phase: its plan is in the store, what they need is here.

    Args:
        run: The run, held by this process.
        phase: The phase.
        todo: The units.
    """
    store = store_of(run.root)
    if store is None:
        return
    push(store)
    if not todo:
        return
    for upstream in _all_upstream(run, phase):
        for spec in run.planned(upstream) or ():
            if spec.unit_id == WHOLE_CORPUS:
                run.fetched(upstream, spec)


def _all_upstream(run: "RunFolder", phase: str) -> Iterable[str]:
    """Every phase that a phase depends on, however far away."""
    found: dict[str, None] = {}
    for upstream in run.phase(phase).upstream:
        found |= dict.fromkeys([*_all_upstream(run, upstream), upstream])
    return found


def _sweep(store: RunStore, lease: StoreLease, run: "RunFolder") -> None:
    """Delete what a finished run no longer needs: units of earlier recipes, older files, parts that came too late.

    Raises:
        BackendError: If the run is lost; what another driver has put there since is not touched.
    """
    contents: dict[str, str] = {}
    old: list[str] = []
    for phase in run.phases:
        keys = {_key(run, phase.name, spec, contents) for spec in run.planned(phase.name) or ()}
        if "" not in keys:
            old += [e.key for e in store.objects.list(f"units/{phase.name}/") if e.key not in keys]
    files = {file_key(name, content) for name, content in lease.files.items()}
    old += [e.key for e in store.objects.list("files/") if e.key not in files]
    old += [e.key for e in store.objects.list(f"{INCOMING}/")]
    if old:
        lease.confirm()
        store.objects.delete(old)
