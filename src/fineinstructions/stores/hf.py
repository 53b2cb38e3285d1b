"""A repository on the Hugging Face hub, through huggingface_hub.

Every write is a commit that names the commit it was decided on; the hub refuses it once there is a later one, and then
the condition is looked at again. So conditions hold here too, but a commit takes a second or so and their number in an
hour is limited: for a run on the hub choose few and large work units.
"""

import random
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fineinstructions.errors import ConfigError
from fineinstructions.stores.raw import Entry
from fineinstructions.stores.trouble import Conflict, status_of

TRIES = 30
"""Commits that may come in between until a write is given up."""
_PLACE = re.compile(r"(?P<kind>datasets|spaces)/(?P<name>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<folder>.*))?")


class Hf:
    """A `Raw` store.

    Args:
        path: ``datasets/OWNER/NAME``, perhaps with ``@BRANCH``, and folder in it.
    """

    def __init__(self, path: str) -> None:
        import huggingface_hub

        found = _PLACE.fullmatch(path)
        if found is None or found["kind"] != "datasets":
            raise ConfigError(f"hf://{path}: a run is kept in a data set; say hf://datasets/OWNER/NAME/FOLDER")
        self._hub: Any = huggingface_hub
        self._api: Any = huggingface_hub.HfApi()
        self._repo = {"repo_id": found["name"], "repo_type": "dataset"}
        self._revision = found["revision"] or "main"
        self._folder = f"{found['folder']}/" if found["folder"] else ""

    def _head(self) -> str:
        return str(self._api.repo_info(**self._repo, revision=self._revision).sha)

    def _known(self, keys: Sequence[str], revision: str) -> dict[str, Any]:
        """What the hub knows of files, by key."""
        paths = [self._folder + key for key in keys]
        found = self._api.get_paths_info(paths=paths, revision=revision, **self._repo)
        return {info.path[len(self._folder) :]: info for info in found if hasattr(info, "blob_id")}

    def _commit(self, operations: Sequence[Any], parent: str) -> bool:
        """Commit on top of a certain commit; false where there is a later one."""
        try:
            self._api.create_commit(
                operations=operations, commit_message="fineinstructions", revision=self._revision,
                parent_commit=parent, **self._repo,
            )  # fmt: skip
        except self._hub.errors.HfHubHTTPError as error:
            if status_of(error)[0] not in (409, 412):
                raise
            time.sleep(random.uniform(0.1, 1.0))
            return False
        return True

    def put(self, key: str, source: bytes | Path, *, new: bool, version: str | None) -> str:
        """Write an object; see `Raw`."""
        for _ in range(TRIES):
            head = self._head()
            known = self._known([key], head).get(key) if new or version else None
            if (new and known) or (version and (known is None or known.blob_id != version)):
                raise Conflict(key)
            content = source if isinstance(source, bytes) else str(source)
            if self._commit([self._hub.CommitOperationAdd(self._folder + key, content)], head):
                known = self._known([key], self._revision).get(key)
                return str(known.blob_id) if known else ""
        raise TimeoutError(f"{TRIES} other commits came in between")

    def read_with_version(self, key: str) -> tuple[bytes, str]:
        """Content and version of an object; see `Raw`."""
        head = self._head()
        known = self._known([key], head).get(key)
        if known is None:
            raise FileNotFoundError(key)
        with self._open(key, head) as file:
            return bytes(file.read()), str(known.blob_id)

    def read(self, key: str, start: int, stop: int | None) -> bytes:
        """Bytes of an object; see `Raw`."""
        with self._open(key, self._head()) as file:
            file.seek(start)
            return bytes(file.read(-1 if stop is None else stop - start))

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object into a file; see `Raw`."""
        with self._open(key, self._head()) as file, path.open("wb") as target:
            while block := file.read(1 << 20):
                target.write(block)

    def _open(self, key: str, head: str) -> Any:
        """Open a file as it is at a commit, which stands still while it is read."""
        files = self._hub.HfFileSystem(use_listings_cache=False, skip_instance_cache=True)
        return files.open(f"datasets/{self._repo['repo_id']}@{head}/{self._folder}{key}", "rb")

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects whose key begins so; see `Raw`."""
        folder = (self._folder + prefix).rpartition("/")[0]
        try:
            found = [
                Entry(item.path[len(self._folder) :], item.size)
                for item in self._api.list_repo_tree(
                    path_in_repo=folder or None, recursive=True, revision=self._revision, **self._repo
                )
                if hasattr(item, "blob_id") and item.path.startswith(self._folder + prefix)
            ]
        except self._hub.errors.EntryNotFoundError:
            return
        yield from sorted(found, key=lambda entry: entry.key)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; see `Raw`."""
        self._change(keys, lambda key: self._hub.CommitOperationDelete(self._folder + key))

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the store; see `Raw`."""
        self._change(
            [source], lambda key: self._hub.CommitOperationCopy(self._folder + key, self._folder + target), needed=True
        )

    def _change(self, keys: Sequence[str], operation: Any, *, needed: bool = False) -> None:
        """One commit that does something to each of some files that are there."""
        for _ in range(TRIES):
            head = self._head()
            known = [key for start in range(0, len(keys), 500) for key in self._known(keys[start : start + 500], head)]
            if needed and len(known) < len(keys):
                raise FileNotFoundError(keys[0])
            if not known or self._commit([operation(key) for key in known], head):
                return
        raise TimeoutError(f"{TRIES} other commits came in between")
