"""`index build`, `info`, `search`, `bench`, `add`, `remove` over the command line, and a run over a ready index."""

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pipeline_inputs import call, content, in_process, look, take_documents

import fineinstructions
from fineinstructions.runs.lease import hold_lease

pytestmark = pytest.mark.xdist_group("index_verbs")

ROOT = Path(__file__).parent.parent
EMBEDDED_BANK = ROOT / "src" / "fineinstructions" / "embedded" / "data" / "bank.parquet"


def recipe(folder: Path, **sections) -> Path:
    path = folder / f"{'-'.join(sections)}.yaml"
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A list-major index of the bank that ships, built over the command line."""
    folder = tmp_path_factory.mktemp("verbs")
    path = recipe(folder, templates={"bank": str(EMBEDDED_BANK)}, index={"kind": "ivf", "nlist": 12, "nprobe": 12})
    built = call("index", "build", path, "--out", folder / "index", "--json")
    assert built.returncode == 0, built.stderr
    facts = json.loads(built.stdout)
    assert (facts["kind"], facts["lists"], facts["turned_away"]) == ("ivf", 12, {})
    assert facts["recall"]["at_10"] > 0.99
    return folder


def test_info_and_bench_tell_what_it_is_worth(folder: Path) -> None:
    shown = look("index", "info", folder / "index").stdout
    for words in ("kind                 ivf", "recall", "at_10", "bytes per vector"):
        assert words in shown
    measured = json.loads(look("index", "bench", folder / "index", "--queries", "50", "--json").stdout)
    assert measured["queries"] == 50
    assert measured["queries_per_cpu_second"] > 0
    nowhere = call("index", "info", folder)
    assert (nowhere.returncode, nowhere.stderr.count("\n")) == (2, 1)
    assert "there is no index here" in nowhere.stderr


def test_search_shows_the_nearest_templates(folder: Path) -> None:
    found = json.loads(look("index", "search", folder / "index", "symptoms of a disease", "-n", "5", "--json").stdout)
    assert len(found) == 5
    cosines = [row["cosine"] for row in found]
    assert cosines == sorted(cosines, reverse=True)
    assert any("disease" in row["description"] or "symptom" in row["description"] for row in found)
    assert "no template at or above" in look("index", "search", folder / "index", "x", "--min-cosine", "0.999").stdout


def test_templates_come_and_go(folder: Path, tmp_path: Path) -> None:
    bank, index = tmp_path / "more.parquet", tmp_path / "index"
    shutil.copytree(folder / "index", index)
    description = "a page about zeppelin airship mooring masts"
    columns = {
        "id": ["new-1", "new-2"],
        "template": ["Where is <fi>a mast</fi>?"] * 2,
        "description": [description] * 2,
    }
    pq.write_table(pa.table(columns), bank)
    added = json.loads(in_process("index", "add", index, bank, "--json")[1])
    assert added["added"] == 2

    def nearest() -> list[str]:
        found = json.loads(in_process("index", "search", index, description, "-n", "2", "--json")[1])
        return [row["template_id"] for row in found]

    assert nearest() == ["new-1", "new-2"]
    code, _, said = in_process("index", "add", index, bank)
    assert (code, said.count("\n")) == (2, 1)
    assert "template 'new-1' is there already; remove it first" in said
    assert nearest() == ["new-1", "new-2"]
    assert json.loads(in_process("index", "remove", index, "new-1", "--json")[1])["removed"] == 1
    assert "new-1" not in nearest()
    pq.write_table(pa.table({name: values[:1] for name, values in columns.items()}), bank)
    assert json.loads(in_process("index", "add", index, bank, "--json")[1])["added"] == 1  # a removed id may come again
    assert nearest() == ["new-2", "new-1"]
    code, _, said = in_process("index", "remove", index, "nobody")
    assert (code, said.count("\n")) == (2, 1)


@pytest.mark.slow
def test_two_changes_at_once_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(folder / "index", index)
    before = content(index) | {"lease": b""}
    with hold_lease(index / "lease"):
        bank = recipe(tmp_path, templates={"bank": str(EMBEDDED_BANK)})
        for verb in (("add", index, EMBEDDED_BANK), ("remove", index, "t-1"), ("build", bank, "--out", index)):
            refused = call("index", *verb)
            assert refused.returncode == 2
            assert f"{index}: process {os.getpid()} on" in refused.stderr
            assert "is working in this folder" in refused.stderr
    assert content(index) == before


@pytest.mark.slow
def test_an_index_of_a_run_and_a_foreign_encoders_are_left_alone(folder: Path, tmp_path: Path) -> None:
    documents = {"path": str(take_documents(tmp_path / "documents.parquet", 4, every=10))}
    path = recipe(tmp_path, templates={"bank": str(EMBEDDED_BANK)}, documents=documents)
    assert call("run", path, "--out", tmp_path / "run").returncode == 0
    (sealed,) = (tmp_path / "run" / "units" / "index").glob("*/index")
    for words in (("remove", sealed, "x"), ("add", sealed, EMBEDDED_BANK), ("build", path, "--out", sealed)):
        refused = call("index", *words)
        assert (refused.returncode, "belongs to a run" in refused.stderr) == (2, True)
    foreign = tmp_path / "foreign"
    shutil.copytree(folder / "index", foreign)
    manifest = json.loads((foreign / "manifest.json").read_text())
    (foreign / "manifest.json").write_text(json.dumps(manifest | {"encoder_id": "other-1"}))
    text = tmp_path / "text.txt"
    text.write_text("Asthma is a disease of the airways.")
    path = recipe(tmp_path, templates={"index": str(foreign)}, documents=documents)
    for words in (("run", path, "--out", tmp_path / "new"), ("try", text, "--recipe", path)):
        refused = call(*words)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert "built with encoder 'other-1'" in refused.stderr


@pytest.mark.slow
def test_removed_templates_are_dead_to_the_gate_too(folder: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    shutil.copytree(folder / "index", index)
    documents = {"path": str(take_documents(tmp_path / "documents.parquet", 30, every=10))}
    path = recipe(tmp_path, templates={"index": str(index)}, documents=documents)
    run = fineinstructions.run(str(path), out=tmp_path / "before", overrides=["engine.workers=0"])
    used = sorted({pair.template_id for pair in run.pairs()})
    assert used
    assert call("index", "remove", index, *used).returncode == 0
    run = fineinstructions.run(str(path), out=tmp_path / "after", overrides=["engine.workers=0"])
    assert run.set_aside == []
    assert not set(used) & {pair.template_id for pair in run.pairs()}
    assert fineinstructions.verify(tmp_path / "after") == []


@pytest.mark.slow
def test_a_run_over_a_ready_index_equals_one_over_its_bank(folder: Path, tmp_path: Path) -> None:
    documents = {"path": str(take_documents(tmp_path / "documents.parquet", 30, every=10))}
    for name, templates in (("bank", {"bank": str(EMBEDDED_BANK)}), ("index", {"index": str(folder / "index")})):
        path = recipe(tmp_path, templates=templates, documents=documents)
        ended = call("run", path, "--out", tmp_path / name)
        assert ended.returncode == 0, ended.stderr
        assert fineinstructions.verify(tmp_path / name) == []
    for table in ("templates", "pairs"):
        assert content(tmp_path / "bank" / table) == content(tmp_path / "index" / table)
    assert list((tmp_path / "index" / "pairs").glob("*.parquet"))
    again = call("run", path, "--out", tmp_path / "index")
    assert "nothing to do" in (again.stdout + again.stderr).replace("\n", " ")
    both = recipe(tmp_path, templates={"index": str(folder / "index"), "bank": str(EMBEDDED_BANK)}, documents=documents)
    refused = call("run", both, "--out", tmp_path / "both")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
