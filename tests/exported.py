"""Exports through the front door, and what lies in them."""

import json
from pathlib import Path
from typing import Any

from pipeline_inputs import in_process

from fineinstructions.corpus.check import read_rows


def export(run: Path, out: Path, *words: str | Path) -> dict[str, Any]:
    """Export, in this process unless workers are asked for; what stands in corpus.json."""
    workers = () if "--workers" in words else ("--workers", "0")
    code, _, errors = in_process("export", run, "--out", out, *workers, *words)
    assert code == 0, errors
    assert not out.with_name(f"{out.name}.work").exists()
    facts: dict[str, Any] = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
    return facts


def rows_of(out: Path, arm: str) -> list[dict[str, Any]]:
    facts = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
    return [row for name in facts["arms"][arm]["files"] for row in read_rows(out / name)]


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
