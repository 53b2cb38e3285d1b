"""What a run with packs looks like on the disk, and the same run without any."""

import shutil
from dataclasses import replace
from pathlib import Path

from toy_run import Toy, content, run_toy

from fineinstructions.runs.packs import PackName

TABLES = ("pairs", "matches", "rejected")


def packs_of(out: str | Path, phase: str = "matches") -> list[PackName]:
    """Packs of a phase, in the order of their names."""
    names = (PackName.parse(path.name) for path in sorted((Path(out) / "units" / phase).iterdir()))
    return [name for name in names if name]


def places_of(out: str | Path, phase: str = "matches") -> list[tuple[int, int]]:
    """First and last place of every pack."""
    return [(name.first, name.last) for name in packs_of(out, phase)]


def loose_of(out: str | Path, phase: str = "matches") -> list[Path]:
    """Folders of single units."""
    return sorted(path for path in (Path(out) / "units" / phase).iterdir() if path.is_dir())


def tables(out: str | Path) -> dict[str, bytes]:
    """The published tables."""
    return {name: raw for name, raw in content(out).items() if name.startswith(TABLES)}


def tables_without_packs(toy: Toy) -> dict[str, bytes]:
    """Tables of a new run of the same settings in which nothing is packed."""
    out = Path(toy.out).with_name("fresh")
    shutil.rmtree(out, ignore_errors=True)
    run_toy(replace(toy, out=str(out), pack=None, redo=False, retry_failed=False, die_packing=""))
    assert packs_of(out) == []
    return tables(out)
