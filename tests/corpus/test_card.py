"""The data card of corpora: what the hub reads, licences with their rows, and nothing that a source could inject."""

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from exported import export, rows_of
from small_run import some_texts, write_run

from fineinstructions.records import Pair

EVIL = "<script>alert(1)</script> | [x](http://evil)"
ARMS = ("standard", "fineinstructions")


def hostile(pair: Pair) -> Pair:
    return dataclasses.replace(pair, template_licence=f"MIT; {EVIL}", source=EVIL)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    run = write_run(folder, some_texts(20), lambda n: 3, changes=hostile)
    words = [word for arm in ARMS for word in ("--arm", arm)]
    export(run, folder / "out", *words, "--format", "hf")
    return folder / "out"


def card_of(out: Path) -> tuple[dict[str, Any], str]:
    _, front, body = (out / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_names_files_and_licences(made: Path) -> None:
    front, _ = card_of(made)
    assert [config["config_name"] for config in front["configs"]] == list(ARMS)
    assert [config.get("default") for config in front["configs"]] == [True, None]
    for config in front["configs"]:
        (files,) = config["data_files"]
        assert len(list(made.glob(files["path"]))) == 1
    assert front["license"] == ["cc-by-4.0", "mit", "other"]
    assert front["license_name"] == "named-in-each-row"
    assert front["size_categories"] == ["n<1K"]


def test_licences_stand_with_their_rows(made: Path) -> None:
    _, body = card_of(made)
    counts = Counter(row["licence"] for arm in ARMS for row in rows_of(made, arm))
    for licence in ("CC-BY-4.0", "CC0"):
        assert any(line.startswith(f"| {licence} |") and line.endswith(f"| {counts[licence]} |")
                   for line in body.splitlines()), licence  # fmt: skip
    pairs = len(rows_of(made, "fineinstructions"))
    assert f"| MIT | mit | {pairs} |" in body


def test_what_sources_say_is_shown_and_does_nothing(made: Path) -> None:
    _, body = card_of(made)
    assert "alert(1)" in body
    assert re.search(r"(?<!\\)(<script|\[x\])", body) is None


def test_models_and_the_way_to_load_are_told(made: Path) -> None:
    _, body = card_of(made)
    assert "some-judge" in body
    assert "0123abcd" in body, "the digest of its prompt"
    for arm in ARMS:
        assert f'load_dataset("PATH_OR_NAME", "{arm}", split="train")' in body


def test_models_of_a_hub_stand_with_their_revisions(tmp_path: Path) -> None:
    """Also in corpora: who takes them finds the very weights that wrote the pairs."""
    llm = {"model": "somebody/instantiator", "revision": "4f1d9c", "base_url": "http://127.0.0.1:1/v1"}
    judge = {"model": "somebody/judge", "revision": "v0.1", "base_url": "http://127.0.0.1:1/v1"}
    run = write_run(
        tmp_path,
        some_texts(8),
        lambda n: 2,
        instantiate={"model": "openai", "llm": llm},
        judge={"model": "openai", "llm": judge},
        licences={"somebody/judge": "Apache-2.0"},
    )
    export(run, tmp_path / "out", "--arm", "fineinstructions")
    _, body = card_of(tmp_path / "out")
    made = {line.split(" | ")[1]: line for line in body.splitlines() if line.startswith(("| instantiate", "| judge"))}
    assert made["somebody/instantiator"].startswith("| instantiate | somebody/instantiator | 4f1d9c |")
    assert made["somebody/judge"].startswith("| judge | somebody/judge | v0.1 | Apache-2.0 |")
