"""The data card of a run: front matter for the hub, licences with their rows, the same bytes from the same run."""

import re
import shutil
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pipeline_inputs import in_process, rows, take_documents, write_recipe

from fineinstructions.cards import Tally, hub_licence
from fineinstructions.records import Pair, schema_of
from fineinstructions.review.columns import PAIR_COLUMNS
from fineinstructions.trial import EMBEDDED_BANK

pytestmark = pytest.mark.xdist_group("card")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over the bank that ships, in one process."""
    folder = tmp_path_factory.mktemp("card")
    documents = take_documents(folder / "d.parquet", 40, every=10)
    recipe = write_recipe(
        folder, documents, queries=None, templates={"bank": str(EMBEDDED_BANK)}, engine={"workers": 0}
    )
    code, _, errors = in_process("run", recipe, "--out", folder / "run")
    assert code == 0, errors
    return folder


def card_of(run: Path) -> tuple[dict[str, Any], str]:
    text = (run / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def table(body: str, heading: str) -> list[list[str]]:
    """Rows of the first table behind a line, its head left out."""
    lines = body.split(heading, 1)[1].splitlines()
    found = [line for line in lines if line.startswith("|")]
    first = lines.index(found[0])
    block = [line for line in lines[first:] if line][: len(found)]
    kept = []
    for line in block:
        if not line.startswith("|"):
            break
        kept.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return kept[2:]


def test_the_front_matter_says_what_the_rows_are(made: Path) -> None:
    front, _ = card_of(made / "run")
    pairs = rows(made / "run", "pairs")
    assert "language" not in front, "the documents do not say"
    assert front["size_categories"] == ["n<1K"]
    default = [config for config in front["configs"] if config.get("default")]
    assert [config["data_files"] for config in default] == ["pairs/*.parquet"]
    for config in front["configs"]:
        assert list((made / "run").glob(config["data_files"]))
    named = {hub_licence(p["licence"]) for p in pairs}
    named |= {hub_licence(name.strip()) for p in pairs for name in p["template_licence"].split(";")}
    assert front["license"] == sorted(named)
    assert ("license_name" in front) == ("other" in named)


def test_licences_are_told_with_their_rows(made: Path) -> None:
    _, body = card_of(made / "run")
    pairs = rows(made / "run", "pairs")
    told = {name: int(number.replace(",", "")) for name, _, number in table(body, "(`licence`)")}
    assert told == {name: sum(p["licence"] == name for p in pairs) for name in {p["licence"] for p in pairs}}
    told = {name: int(number.replace(",", "")) for name, _, number in table(body, "(`template_licence`")}
    behind = [{part.strip() for part in p["template_licence"].split(";")} for p in pairs]
    assert told == {name: sum(name in names for names in behind) for name in set().union(*behind)}


def test_where_no_licence_is_named_the_card_says_what_to_set(tmp_path: Path) -> None:
    documents = pq.read_table(take_documents(tmp_path / "d.parquet", 8, every=50)).drop(["licence"])
    pq.write_table(documents, tmp_path / "d.parquet")
    sections: dict[str, Any] = {"queries": None, "templates": {"bank": str(EMBEDDED_BANK)}, "engine": {"workers": 0}}
    recipe = write_recipe(tmp_path, tmp_path / "d.parquet", retrieve={"min_cosine": -1.0}, **sections)
    assert in_process("run", recipe, "--out", tmp_path / "run")[0] == 0
    front, body = card_of(tmp_path / "run")
    assert "unknown" in front["license"]
    assert "set `documents.licence` to the licence of all rows that name none" in body
    words = ("--set", "documents.licence=CC-BY-4.0")
    told = in_process("doctor", recipe)[1], in_process("doctor", recipe, *words)[1]
    assert ["set documents.licence_column" in " ".join(said.split()) for said in told] == [True, False]
    code, _, errors = in_process("run", recipe, "--out", tmp_path / "run", "--redo", *words)
    assert code == 0, errors
    front, body = card_of(tmp_path / "run")
    assert "unknown" not in front["license"] and "`documents.licence`" not in body
    assert {pair["licence"] for pair in rows(tmp_path / "run", "pairs")} == {"CC-BY-4.0"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over documents that name a source and a licence each of their own, written to be taken for Markdown."""
    folder = tmp_path_factory.mktemp("hostile")
    run = folder / "a [/b] :smile: [red]c"
    documents = pq.read_table(take_documents(folder / "d.parquet", 110, every=4)).drop(["source", "licence"])
    numbers = range(documents.num_rows)
    columns = {
        "source": [f"{HOSTILE[number % len(HOSTILE)]} {number}" for number in numbers],
        "licence": [f"{HOSTILE[number % len(HOSTILE)]} {number}" for number in numbers],
        "lang": [("de", "en-GB", "no language at all")[number % 3] for number in numbers],
    }
    for name, values in columns.items():
        documents = documents.append_column(name, [values])
    pq.write_table(documents, folder / "d.parquet")
    recipe = write_recipe(
        folder, folder / "d.parquet", queries=None, templates={"bank": str(EMBEDDED_BANK)}, engine={"workers": 0}
    )
    for told in ("pairs", "complete already"):
        code, out, errors = in_process("run", recipe, "--out", run)
        assert code == 0, errors
        assert told in out
        assert f"next: fineinstructions inspect {run} " in out
    return run


HOSTILE = ("<!-- x", "<img src=https://a.b/c.png>", "[l](https://a.b)", "![p](https://a.b)", "`a", "a | b", "\\[l](x)")


def test_names_of_sources_and_licences_do_nothing_in_it(hostile: Path) -> None:
    _, body = card_of(hostile)
    named = body.split("## Licences")[1].split("## Judge's scores")[0]
    told = "\n".join(line for line in named.splitlines() if line.startswith("| ") and line[-3].isdigit())
    assert told.count("x ") > 5
    assert not re.search(r"(?<!\\)(?:\\\\)*(<|!?\[)", told)
    assert "https://" not in told
    for line in table(body, "## Sources of the documents"):
        assert len(line) == 2
    assert "## Columns" in body


def test_the_most_frequent_names_are_told_and_the_rest_counted_together(hostile: Path) -> None:
    front, body = card_of(hostile)
    pairs = rows(hostile, "pairs")
    counts = Counter(pair["source"] for pair in pairs)
    assert len(counts) > 50
    for heading in ("## Sources of the documents", "(`licence`)"):
        told = table(body, heading)
        assert len(told) == 51
        assert told[-1][0] == "others"
        numbers = [int(line[-1]) for line in told]
        assert numbers[:-1] == sorted(counts.values(), reverse=True)[:50]
        assert sum(numbers) == len(pairs)
    assert front["language"] == ["de", "en"]
    assert "other" in front["license"]


@given(st.lists(st.integers(0, 30), max_size=200))
def test_a_tally_forgets_values_but_no_rows(values: list[int]) -> None:
    tally = Tally(max_held=8)
    for value in values:
        tally.add(value, 1)
    held = tally.items()
    assert len(held) <= 8
    assert tally.num_rows == len(values)
    assert all(number <= values.count(value) for value, number in held)


def test_it_tells_what_made_the_pairs_and_where_records_went(made: Path) -> None:
    _, body = card_of(made / "run")
    assert [row[0] for row in table(body, "## What made them")] == ["encoder", "instantiate", "judge"]
    pairs = rows(made / "run", "pairs")
    assert table(body, "names them, with the digests")[0] == [f"`{pairs[0]['models']}`", f"{len(pairs):,}"]
    stages = {row[0]: row for row in table(body, "## From stage to stage")}
    assert stages["select"][2] == f"{len(pairs):,}"
    assert stages["documents"][1] == "40"
    columns = [row[0] for row in table(body, "## Columns")]
    assert columns == pq.read_schema(next((made / "run" / "pairs").glob("*.parquet"))).names
    assert all(PAIR_COLUMNS[name] for name in schema_of(Pair).names)


def test_the_same_run_has_the_same_card_and_names_no_place(made: Path, tmp_path: Path) -> None:
    before = (made / "run" / "README.md").read_bytes()
    moved = tmp_path / "elsewhere"
    shutil.copytree(made / "run", moved)
    (moved / "README.md").unlink()
    code, out, errors = in_process("run", made / "recipe.yaml", "--out", moved)
    assert (code, "nothing to do" in out) == (0, True), errors
    assert (moved / "README.md").read_bytes() == before
    assert str(made) not in before.decode()
    assert not re.search(r"20\d\d-\d\d-\d\d", before.decode())


def test_licences_of_models_come_from_the_recipe_and_redo_nothing(made: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(made / "run", moved)
    text = yaml.safe_load((made / "recipe.yaml").read_text()) | {"licences": {"fineinstructions (embedded)": "x"}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(text))
    code, out, errors = in_process("run", tmp_path / "r.yaml", "--out", moved)
    assert (code, "nothing to do" in out) == (0, True), errors


@pytest.mark.extra
def test_the_hubs_own_client_reads_it(made: Path) -> None:
    if find_spec("huggingface_hub") is None:
        pytest.skip("huggingface_hub is not installed")
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(made / "run" / "README.md")
    assert "cc-by-4.0" in card.data.license
    assert card.data.to_dict()["configs"][0]["config_name"] == "pairs"
