"""Toy runs on a store: how they are started, and what must be there at the end. A script that does one, too."""

import io
import sys
import uuid
import zipfile
from dataclasses import replace
from pathlib import Path

from toy_run import LINKS, PUBLISHED, Toy, accepted, content, run_toy, some_texts, write_documents

from fineinstructions.runs import Finding, RunFolder, verify
from fineinstructions.runs.places import fresh_look, run_root
from fineinstructions.stores import open_objects


def on(toy: Toy, url: str, work: Path) -> Toy:
    """The same, kept on a store and worked on in some folder."""
    return replace(toy, out=str(run_root(url, work)))


def expected(toy: Toy) -> dict[str, bytes]:
    """What a run in a folder makes, without the places of units in the plan, which no key of a store has."""
    local = replace(toy, out=f"{toy.out}-{uuid.uuid4().hex}", workers=0, seconds=0.0, retry_failed=False)
    run_toy(local)
    return {_without_ordinal(name): data for name, data in content(local.out).items()}


def _without_ordinal(name: str) -> str:
    parts = name.split("/")
    return "/".join([*parts[:2], parts[2].partition("-")[2], *parts[3:]]) if parts[0] == "units" else name


def stored(url: str) -> dict[str, bytes]:
    """The same of a run on a store, read from there alone."""
    objects, found = open_objects(url), {}
    for entry in objects.list():
        if entry.key.startswith("units/"):
            folder = entry.key.rpartition("-")[0]
            with zipfile.ZipFile(io.BytesIO(objects.read(entry.key))) as box:
                found |= {f"{folder}/{name}": box.read(name) for name in box.namelist()}
        elif entry.key.split("/")[0] in ("pairs", "matches", "rejected"):
            found[f"{entry.key.rpartition('-')[0]}.parquet"] = objects.read(entry.key)
    return found


def check(url: str, work: Path) -> list[Finding]:
    with fresh_look(url, work) as root:
        return verify(RunFolder.open(root), links=LINKS, published=PUBLISHED, documents=accepted)


def expect_whole(toy: Toy, url: str, work: Path) -> None:
    assert stored(url) == expected(toy)
    assert check(url, work) == []


def make_one(url: str, folder: Path) -> None:
    """Make a run from the start, and continue it from an empty disk."""
    path = write_documents(folder / "documents.parquet", some_texts(40))
    toy = Toy(inputs=(str(path),), out=str(folder / "local"))
    run_toy(on(toy, url, folder / "work"))
    expect_whole(toy, url, folder / "work")
    assert [outcome.num_done for outcome in run_toy(on(toy, url, folder / "elsewhere"))] == [0, 0]


if __name__ == "__main__":
    make_one(sys.argv[1], Path(sys.argv[2]))
