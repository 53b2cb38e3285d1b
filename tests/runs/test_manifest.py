"""A torn or damaged manifest never passes for a whole one."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from toy_run import Toy, check, content, run_toy, some_texts, write_documents

from fineinstructions.errors import DataError
from fineinstructions.runs import RunFolder
from fineinstructions.runs.ledger import MANIFEST, FileEntry, Manifest, StageAccount, parse_manifest


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        phase="pairs",
        unit_id="u-0123",
        digest="d1",
        inputs="i1",
        stages={"judge": StageAccount(12, 9, 0, {"low_score": 2}, {"transport": 1})},
        counts={"calls": 12, "née": 1},
        files=(FileEntry("pair.parquet", 1234, "ab" * 32, 9),),
    )


def saved(manifest: Manifest, folder: Path) -> bytes:
    manifest.save(folder)
    return (folder / MANIFEST).read_bytes()


def outcomes(damaged: Iterable[bytes]) -> Iterator[Manifest | None]:
    """What becomes of each: a manifest that is read, or None where it is told to be damaged."""
    for raw in damaged:
        try:
            yield parse_manifest(raw, "here")
        except DataError as error:
            assert "torn or edited manifest" in str(error)
            assert "the unit will be redone by the next run" in str(error)
            yield None


def test_every_prefix_of_a_manifest_is_torn(tmp_path: Path, manifest: Manifest) -> None:
    raw = saved(manifest, tmp_path)
    whole = len(raw.rstrip(b"\n"))
    found = list(outcomes(raw[:length] for length in range(len(raw) + 1)))
    assert found[:whole] == [None] * whole
    assert found[whole:] == [manifest] * (len(raw) + 1 - whole), "without its last line end it says the same"


def test_every_flipped_bit_of_a_manifest_is_damage(tmp_path: Path, manifest: Manifest) -> None:
    raw = saved(manifest, tmp_path)
    flips = (
        raw[:place] + bytes([raw[place] ^ (1 << bit)]) + raw[place + 1 :]
        for place in range(len(raw))
        for bit in range(8)
    )
    found = list(outcomes(flips))
    assert found == [None] * (8 * len(raw))


def test_garbage_behind_a_manifest_is_damage(tmp_path: Path, manifest: Manifest) -> None:
    raw = saved(manifest, tmp_path)
    assert list(outcomes([raw + b"\0" * 512, raw + raw, raw + b"}", b"\0" * len(raw)])) == [None] * 4


@pytest.mark.parametrize("name", ["../letter", "/etc/passwd", "a/../../letter", "..\\letter", ""])
def test_a_file_outside_of_the_folder_is_damage(tmp_path: Path, manifest: Manifest, name: str) -> None:
    """Its seal fits: whoever writes manifests to do harm can seal them too."""
    outside = replace(manifest, files=(*manifest.files, replace(manifest.files[0], name=name)))
    assert list(outcomes([saved(outside, tmp_path)])) == [None]


def test_a_run_whose_tables_name_a_file_elsewhere_is_mended_and_nothing_is_read_there(tmp_path: Path) -> None:
    documents = write_documents(tmp_path / "documents.parquet", some_texts(20))
    toy = Toy((str(documents),), str(tmp_path / "run"))
    run_toy(toy)
    before = content(toy.out)
    run = RunFolder.open(toy.out)
    pairs, elsewhere = run.published("pairs"), tmp_path / "letter.parquet"
    assert pairs is not None
    elsewhere.write_bytes((run.root / "pairs" / pairs.files[0].name).read_bytes())
    replace(pairs, files=(replace(pairs.files[0], name="../../letter.parquet"),)).save(run.published_folder("pairs"))
    assert RunFolder.open(toy.out).published("pairs") is None
    assert any(str(finding).startswith("pairs: ") for finding in check(toy.out)), list(map(str, check(toy.out)))
    run_toy(toy)
    assert content(toy.out) == before
    assert check(toy.out) == []
