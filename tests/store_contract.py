"""What every store has to do, whichever it is."""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from fineinstructions.stores import Conflict, Objects, open_objects
from fineinstructions.stores.objects import PAUSES_SECONDS


def conflicts(objects: Objects, key: str, content: bytes | Path, version: str | None = None) -> bool:
    """Whether a write was refused for its condition."""
    try:
        if version is None:
            objects.put_new(key, content)
        else:
            assert isinstance(content, bytes)
            objects.replace(key, content, version)
    except Conflict:
        return True
    return False


def check(url: str, large_bytes: int, pauses: Sequence[float] = PAUSES_SECONDS) -> None:
    """Go through all that `Objects` promises."""
    objects = open_objects(url, pauses)
    assert list(objects.list()) == []
    assert objects.read_with_version("head") is None
    assert not conflicts(objects, "head", b"first")
    assert conflicts(objects, "head", b"second")
    found = objects.read_with_version("head")
    assert found is not None
    content, version = found
    assert content == b"first"
    later = objects.replace("head", b"third", version)
    assert later not in ("", version)
    assert conflicts(objects, "head", b"fourth", version)
    assert conflicts(objects, "nothing there", b"fifth", version)
    assert objects.read_with_version("head") == (b"third", later)
    _check_many(objects)
    with tempfile.TemporaryDirectory() as folder:
        _check_files(objects, Path(folder), large_bytes)
    objects.delete([entry.key for entry in objects.list()])
    assert list(objects.list()) == []


def _check_many(objects: Objects) -> None:
    names = [f"many/a b+c-{number}" for number in range(7)]
    for number, name in enumerate(names):
        objects.put(name, b"x" * number)
    objects.put("manyfold", b"not among them")
    assert [(entry.key, entry.num_bytes) for entry in objects.list("many/")] == [(n, i) for i, n in enumerate(names)]
    objects.delete([*names[1:], "never there"])
    assert [entry.key for entry in objects.list("many/")] == names[:1]
    try:
        objects.read("never there")
    except FileNotFoundError:
        pass
    else:
        raise AssertionError("read what is not there")


def _check_files(objects: Objects, folder: Path, large_bytes: int) -> None:
    source, target = folder / "source", folder / "target"
    source.write_bytes(bytes(range(256)) * (large_bytes // 256))
    objects.put_new("large", source)
    assert conflicts(objects, "large", source)
    objects.copy("large", "copy")
    objects.fetch("copy", target)
    assert target.read_bytes() == source.read_bytes()
    assert objects.read("copy", 250, 260) == bytes([*range(250, 256), *range(4)])
    assert objects.read("copy", large_bytes - 3) == bytes([253, 254, 255])


if __name__ == "__main__":
    check(sys.argv[1], int(sys.argv[2]))
