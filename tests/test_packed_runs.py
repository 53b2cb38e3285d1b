"""A real run whose units are packed, against the same run without packs: same tables, and every verb reads it."""

import json
from pathlib import Path

import pytest
from pipeline_inputs import content, in_process, look, output_json, rows, take_documents, write_recipe

from fineinstructions.runs import packing

TABLES = ("pairs", "matches", "templates", "rejected")
PHASES = ("candidates", "matches", "pairs")


def packs_of(run: Path) -> dict[str, int]:
    return {phase: len(list((run / "units" / phase).glob("pack-*.zip"))) for phase in PHASES}


@pytest.mark.slow
def test_a_packed_run_is_the_same_run(bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = take_documents(tmp_path / "documents.parquet", 24, every=16)
    recipe = write_recipe(
        tmp_path, documents, queries=None, templates={"bank": str(bank)}, engine={"workers": 0, "unit_rows": 3}
    )
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    assert in_process("run", recipe, "--out", plain)[0] == 0
    assert packs_of(plain) == dict.fromkeys(PHASES, 0)
    monkeypatch.setattr(packing, "PACK_UNITS", 4)
    monkeypatch.setattr(packing, "MAX_LOOSE", 2)
    assert in_process("run", recipe, "--out", packed)[0] == 0
    assert packs_of(packed) == dict.fromkeys(PHASES, 2)
    left = [path.name for phase in PHASES for path in (packed / "units" / phase).iterdir() if path.is_dir()]
    assert all(name.startswith("000008-") for name in left), "the one unit that fills no pack stays as it is"
    assert len(left) == len(PHASES)

    assert {table: content(packed / table) for table in TABLES} == {table: content(plain / table) for table in TABLES}
    assert (packed / "diagnostics.json").read_bytes() == (plain / "diagnostics.json").read_bytes()
    pair = rows(packed, "pairs")[0]["pair_id"]
    for words in (("verify",), ("status",), ("yields",), ("explain", pair)):
        verb, *more = words
        told = [look(verb, run, *more, "--json") for run in (plain, packed)]
        first, second = map(output_json, told)
        if verb == "status":
            for state in (first, second):
                for phase in state["phases"]:
                    del phase["units_per_second"]
        assert first == second, verb

    code, said, _ = in_process("pack", plain, "--json")
    assert code == 0
    assert all(json.loads(said)[name] == {"packs": 2, "folders": 1} for name in PHASES)
    assert packs_of(plain) == packs_of(packed)
    assert output_json(look("verify", plain, "--json")) == []
    assert in_process("run", recipe, "--out", plain)[0] == 0
    assert {table: content(packed / table) for table in TABLES} == {table: content(plain / table) for table in TABLES}
