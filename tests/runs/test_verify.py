"""Every kind of loss is found; a clean run has no findings."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_run import LINKS, PUBLISHED, Toy, accepted, check, run_toy, some_texts, write_documents

from fineinstructions.records import Document, Excerpt, Pair
from fineinstructions.runs import RunFolder, UnitSpec, verify
from fineinstructions.runs.files import FolderFiles, read_manifest
from fineinstructions.runs.tables import tables_of


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    documents = write_documents(tmp_path / "documents.parquet", some_texts(45))
    toy = Toy(inputs=(str(documents),), out=str(tmp_path / "run"))
    run_toy(toy)
    assert check(toy.out) == []
    return toy


def problems(toy: Toy, **settings: Any) -> str:
    defaults = {"links": LINKS, "published": PUBLISHED, "documents": accepted}
    return "\n".join(map(str, verify(RunFolder.open(toy.out), **{**defaults, **settings})))


def forge(toy: Toy, phase: str, stage: str, **changes: Any) -> None:
    """Rewrite the account of a stage in the first unit's manifest, with a fitting seal."""
    folder = min((Path(toy.out) / "units" / phase).iterdir())
    manifest = read_manifest(FolderFiles(folder))
    assert manifest
    stages = {**manifest.stages, stage: replace(manifest.stages[stage], **changes)}
    replace(manifest, stages=stages).save(folder)


def test_a_lost_record(toy: Toy) -> None:
    forge(toy, "pairs", "judge", num_out=7)
    assert "stage 'judge' lost" in problems(toy)


def test_rows_that_never_entered(toy: Toy) -> None:
    forge(toy, "matches", "read", num_in=8, num_out=7)
    assert "8 of 10 records entered its first stage 'read'" in problems(toy)
    assert "read -> match" in problems(toy)


def test_pairs_that_never_entered(toy: Toy) -> None:
    forge(toy, "pairs", "judge", num_in=2, num_out=2)
    assert "2 of 9 records entered its first stage 'judge'" in problems(toy)
    assert "judge -> select" in problems(toy)


def test_published_rows_equal_the_account(toy: Toy) -> None:
    assert "pairs: 39 rows, but the units account for 43" in problems(toy, published={"pairs": "read"})
    assert "templates: not published" in problems(toy, published={"templates": "read"})


def test_an_edited_or_added_part(toy: Toy) -> None:
    part = Path(toy.out) / "pairs" / "part-00000.parquet"
    raw = bytearray(part.read_bytes())
    raw[60] ^= 1
    part.write_bytes(raw)
    (part.parent / "part-00007.parquet").write_bytes(raw)
    found = problems(toy, documents=None)
    assert "part-00000.parquet does not have the content that was committed" in found
    assert "part-00007.parquet is not listed" in found


def test_an_edited_part_that_cannot_be_read(toy: Toy) -> None:
    (Path(toy.out) / "pairs" / "part-00000.parquet").write_bytes(b"PAR1")
    assert "cannot be read" in problems(toy)


def test_a_missing_unit(toy: Toy) -> None:
    path = min((Path(toy.out) / "units" / "pairs").iterdir()) / "manifest.json"
    path.unlink()
    assert "not committed; run again" in problems(toy)


def test_an_unfinished_plan(toy: Toy) -> None:
    (Path(toy.out) / "plan" / "pairs.arrow").unlink()
    assert "pairs: not planned yet" in problems(toy)


def test_a_document_that_changed_under_its_excerpts(toy: Toy) -> None:
    def changed(spec: UnitSpec) -> Iterable[Document]:
        return (replace(d, text=d.text.replace("squared", "cubed")) for d in accepted(spec))

    found = problems(toy, documents=changed).splitlines()
    assert len(found) == 39
    assert all("offsets outside" in line or "is not the text of its document" in line for line in found)


def test_a_document_that_is_gone(toy: Toy) -> None:
    def without(spec: UnitSpec) -> Iterable[Document]:
        return (d for d in accepted(spec) if d.document_id != "d5")

    assert "document 'd5' is not where the plan has it" in problems(toy, documents=without)


def test_repeated_documents(toy: Toy) -> None:
    def twice(spec: UnitSpec) -> Iterable[Document]:
        return [*accepted(spec), *accepted(spec)]

    assert "document_id: 'd5' occurs 2 times" in problems(toy, documents=twice)


def test_wrong_excerpts_are_found_in_what_was_published(toy: Toy) -> None:
    run = RunFolder.open(toy.out)
    pairs = list(run.published_records("pairs", Pair))
    for wrong in (Excerpt(0, 5, 3, 8), Excerpt(0, 5, 4, 8), Excerpt(-1, 4, 4, 9), Excerpt(0, 9, 400, 409)):
        forged = [replace(pairs[0], excerpts=(wrong,)), *pairs[1:], replace(pairs[-1])]
        run.publish("pairs", Pair, tables_of(forged, Pair), phase="assemble")
        found = problems(toy)
        assert f"pair {pairs[0].pair_id}: excerpt 0" in found
        assert f"pair_id: {pairs[-1].pair_id!r} occurs 2 times" in found


def test_findings_name_their_place(toy: Toy) -> None:
    path = min((Path(toy.out) / "units" / "matches").iterdir()) / "manifest.json"
    plain = json.loads(path.read_text())
    plain["counts"]["calls"] += 1
    path.write_text(json.dumps(plain))
    assert problems(toy).startswith(f"matches/{path.parent.name}: ")
