"""A recipe that names artefacts of a hub: refused without revisions, filled in by the doctor, licences told."""

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import COMMIT, HubServer, serve_hub
from pipeline_inputs import command, in_process, rows, take_documents

from fineinstructions.artefacts import artefacts
from fineinstructions.backends.hub import NONE_DECLARED, folder_licence
from fineinstructions.backends.llm import LlmConfig, with_overrides
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.config import filled_in, from_mapping, load
from fineinstructions.errors import ConfigError
from fineinstructions.recipe import RunConfig
from fineinstructions.templates.bank import TemplatesConfig
from fineinstructions.trial import EMBEDDED_BANK

PAPER = Path(__file__).parent.parent / "recipes" / "paper.yaml"
NAMES = {
    "models/fineinstructions/query_templatizer": None,
    "models/fineinstructions/instruction_template_retrieval_embedding": {"library_name": "sentence-transformers"},
    "models/fineinstructions/template_instantiator": {"license": "other", "license_name": "llama3.2"},
    "models/flowaicom/Flow-Judge-v0.1": {"license": "apache-2.0"},
    "datasets/fineinstructions/finetemplates": {"license": ["mit", "cc0-1.0"]},
}


def asked_of(server: HubServer, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The program with this hub for the real one, in a process of its own: its client reads the address once."""
    settings = {"HF_ENDPOINT": server.address, "NO_PROXY": "127.0.0.1", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    return subprocess.run(
        command(*words), capture_output=True, text=True, timeout=120, check=False, env=os.environ | settings
    )


def test_the_papers_recipe_refuses_until_somebody_has_chosen_revisions(tmp_path: Path) -> None:
    code, _, errors = in_process("run", PAPER, "--out", tmp_path / "run")
    assert code == 2
    keys = ["templates.revision", "encoder.revision", "instantiate.llm.revision"]
    assert errors.startswith(f"fineinstructions: {', '.join(keys)}, judge.llm.revision: empty;")
    assert "doctor RECIPE --resolve" in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
    _, _, errors = in_process("templates", "build", PAPER, "--out", tmp_path / "bank", "--set", "templates={}")
    assert "genericize.llm.revision" in errors, "without the bank its model is asked"


def test_the_doctor_tells_a_model_that_no_run_asks(tmp_path: Path) -> None:
    checks = json.loads(in_process("doctor", PAPER, "--json")[1])
    told = {
        check["detail"].partition(":")[0]: (check["ok"], check["detail"])
        for check in checks
        if check["check"] == "licence"
    }
    assert told["genericize"][0]
    assert told["genericize"][1].endswith("is empty, see --resolve; not asked, as the templates are ready made")
    assert not told["judge"][0]


def test_one_empty_revision_is_enough(tmp_path: Path) -> None:
    documents = take_documents(tmp_path / "d.parquet", 1)
    recipe = {"documents": {"path": str(documents)}, "templates": {"bank": "nowhere"}}
    recipe |= {"judge": {"model": "openai"}, "llm": {"model": "a", "revision": ""}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    code, _, errors = in_process("run", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert code == 2
    assert errors.startswith("fineinstructions: llm.revision: empty;")


@pytest.mark.extra
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_doctor_fills_in_what_the_hub_says_and_nothing_else(tmp_path: Path, line_end: str) -> None:
    if find_spec("huggingface_hub") is None:
        pytest.skip("huggingface_hub is not installed")
    recipe = tmp_path / "paper.yaml"
    before = PAPER.read_text(encoding="utf-8").replace("\n", line_end)
    recipe.write_bytes(before.encode())
    with serve_hub(NAMES) as server:
        done = asked_of(server, "doctor", recipe, "--resolve")
        again = asked_of(server, "doctor", recipe, "--resolve")
    asked = {path.partition("/revision/")[0] for path in server.asked if path.startswith(("models/", "datasets/"))}
    assert {name for name in asked if "/tree/" not in name} == set(NAMES)
    assert f"datasets/fineinstructions/finetemplates/tree/{COMMIT}" in asked, "the bank is read at its revision"
    assert f"fineinstructions/query_templatizer at {COMMIT}, licence: {NONE_DECLARED}" in done.stdout
    assert f"fineinstructions/template_instantiator at {COMMIT}, licence: other (llama3.2)" in done.stdout
    assert f"fineinstructions/finetemplates at {COMMIT}, licence: mit; cc0-1.0" in done.stdout
    assert "nothing to fill in" in again.stdout
    after = recipe.read_bytes().decode()
    lines = list(zip(before.split(line_end), after.split(line_end), strict=True))
    assert "\n" not in after.replace(line_end, "")
    changed = [(old, new) for old, new in lines if old != new]
    assert len(changed) == 10
    assert all(new.replace(f'revision: "{COMMIT}"', 'revision: ""') == old for old, new in changed[:5])
    filled = load(recipe, RunConfig)
    found = [a for a in artefacts(filled) if a.is_on_hub]
    assert {a.revision for a in found} == {COMMIT}
    assert {a.name: a.licence for a in found} == {
        "fineinstructions/query_templatizer": NONE_DECLARED,
        "fineinstructions/instruction_template_retrieval_embedding": NONE_DECLARED,
        "fineinstructions/template_instantiator": "other (llama3.2)",
        "flowaicom/Flow-Judge-v0.1": "apache-2.0",
        "fineinstructions/finetemplates": "mit; cc0-1.0",
    }
    assert filled.templates.location == f"hf://datasets/fineinstructions/finetemplates@{COMMIT}/**/*.parquet"


@pytest.mark.extra
def test_what_the_hub_does_not_give_is_told_and_stays_empty(tmp_path: Path) -> None:
    if find_spec("huggingface_hub") is None:
        pytest.skip("huggingface_hub is not installed")
    recipe = tmp_path / "paper.yaml"
    text = PAPER.read_text(encoding="utf-8").replace('Flow-Judge-v0.1, revision: ""', "Flow-Judge-v0.1, revision: v9")
    recipe.write_text(text, encoding="utf-8")
    known = {name: card for name, card in NAMES.items() if "templatizer" not in name}
    with serve_hub(known, gated=("models/fineinstructions/template_instantiator",)) as server:
        done = asked_of(server, "doctor", recipe, "--resolve")
        server.shutdown()
    assert done.returncode == 1
    assert "knows no such model" in done.stdout
    assert "gated; accept its terms" in done.stdout
    assert "flowaicom/Flow-Judge-v0.1 at v9: the hub has no such revision" in done.stdout
    config = load(recipe, RunConfig)
    revisions = {a.role: a.revision for a in artefacts(config) if a.is_on_hub}
    assert revisions == {"genericize": "", "bank": COMMIT, "encoder": COMMIT, "instantiate": "", "judge": "v9"}


@pytest.mark.extra
def test_a_hub_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    if find_spec("huggingface_hub") is None:
        pytest.skip("huggingface_hub is not installed")
    (tmp_path / "r.yaml").write_text(PAPER.read_text(encoding="utf-8"))
    with HubServer({}) as closed:
        pass
    done = asked_of(closed, "doctor", tmp_path / "r.yaml", "--resolve")
    assert done.returncode == 1
    assert "the hub does not answer" in done.stdout
    assert "Traceback" not in done.stderr
    assert (tmp_path / "r.yaml").read_text() == PAPER.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_papers_recipe_runs_as_it_is_wired(tmp_path: Path) -> None:
    """The scripted server plays all three published models; encoder and bank are those that ship."""
    recipe = yaml.safe_load(PAPER.read_text(encoding="utf-8"))
    recipe["documents"] = {"path": str(take_documents(tmp_path / "d.parquet", 16, every=20))}
    recipe |= {"templates": {"bank": str(EMBEDDED_BANK)}, "encoder": {}, "retrieve": {"min_cosine": 0.2}}
    recipe["licences"] |= {"fineinstructions/template_instantiator": "none declared"}
    models = ("fineinstructions/template_instantiator", "flowaicom/Flow-Judge-v0.1")
    with ScriptedServer(keep_bodies=True, models=models) as server:
        for stage in ("genericize", "instantiate", "judge"):
            recipe[stage]["llm"] |= {"base_url": server.base_url, "revision": f"{stage}-commit"}
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
        code, _, errors = in_process("run", tmp_path / "r.yaml", "--out", tmp_path / "run", "--workers", "0")
    assert code == 0, errors
    pairs = rows(tmp_path / "run", "pairs")
    assert pairs
    made = json.loads(pairs[0]["models"])
    assert (made["instantiator"]["revision"], made["judge"]["revision"]) == ("instantiate-commit", "judge-commit")
    assert made["judge"]["protocol"] == "flow"
    own = [body for body in server.bodies if "single word ready" not in str(body)]  # what a model can do is asked too
    asked = [body for body in own if body["model"] == "fineinstructions/template_instantiator"]
    for body in asked:
        (message,) = body["messages"]
        assert json.loads(message["content"]).keys() == {"instruction_template", "document"}
        assert "response_format" not in body
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    row = "| instantiate | fineinstructions/template_instantiator | instantiate-commit | none declared |"
    assert row in card
    assert "| judge | flowaicom/Flow-Judge-v0.1 | judge-commit | not known |" in card
    assert "| genericize |" not in card.partition("## Licences")[0], "a ready bank takes its place"


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("a:\n  b: ''   # why\n", {("a", "b"): "x"}, 'a:\n  b: "x"   # why\n'),
        ("é: ''\na: {b: ''}\n", {("a", "b"): "ü"}, "é: ''\na: {b: \"ü\"}\n"),
        ("a: 1\nb:\n", {("a",): "x", ("b",): "x"}, "a: 1\nb:\n"),
        ("x: &y ''\nz: *y\n", {("x",): "1"}, 'x: &y "1"\nz: *y\n'),
    ],
)
def test_only_empty_texts_are_filled(text: str, values: dict[tuple[str, ...], str], expected: str) -> None:
    assert filled_in(text, values)[0] == expected


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"bank": "hf://datasets/a/b/*.parquet", "revision": ""}, "templates.revision: empty"),
        ({"bank": "hf://datasets/a/b@main/*.parquet", "revision": "c"}, "names a revision too"),
        ({"bank": "folder", "revision": "c"}, "only a bank on the hub"),
    ],
)
def test_a_banks_revision_has_one_place(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TemplatesConfig(**sections).location  # noqa: B018


def test_a_folder_tells_its_licence(tmp_path: Path) -> None:
    assert folder_licence(tmp_path) == NONE_DECLARED
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-4.0\ntags: [x]\n---\n# A model\n")
    assert folder_licence(tmp_path) == "cc-by-4.0"
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    assert folder_licence(tmp_path) == NONE_DECLARED


def test_a_stage_with_a_model_of_its_own_does_not_take_over_the_shared_ones_revision() -> None:
    shared = LlmConfig(model="a/b", revision="commit-a", context_tokens=4096)
    assert with_overrides(shared, {"model": "c/d"}).revision is None
    assert with_overrides(shared, {"model": "c/d"}).context_tokens is None
    assert with_overrides(shared, {"model": "c/d", "revision": "commit-c"}).revision == "commit-c"
    assert with_overrides(shared, {"max_tokens": 9}).revision == "commit-a"
    assert with_overrides(shared, {"model": "a/b"}).revision == "commit-a"
    config = from_mapping(
        {"llm": {"model": "a/b", "revision": ""}, "judge": {"model": "openai", "llm": {"model": "c/d"}}}, RunConfig
    )
    assert {a.role: a.revision for a in artefacts(config)}["judge"] is None
