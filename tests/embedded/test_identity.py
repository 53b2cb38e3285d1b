"""What identifies an embedded model covers all code and data that decides what the model says."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fineinstructions.embedded import compatibility, genericizer, instantiator, judge, names
from fineinstructions.embedded.identity import HERE, RELATIONS, code_digest
from fineinstructions.embedded.relations import RelationGate

MODELS = {
    "genericizer": (HERE / "genericizer.py", genericizer.CODE),
    "instantiator": (HERE / "instantiator.py", instantiator.CODE),
    "compatibility": (HERE / "compatibility.py", compatibility.CODE),
    "judge": (HERE / "judge.py", judge.CODE),
    "gate": (HERE / "relations" / "gate.py", RELATIONS),
}
NO_RULES = {HERE / "identity.py"}


def embedded_imports(path: Path) -> set[Path]:
    """Files of the embedded tier that a file imports, itself and theirs included."""
    found: set[Path] = set()
    left = [path]
    while left:
        here = left.pop()
        if here in found | NO_RULES:
            continue
        found.add(here)
        for node in ast.walk(ast.parse(here.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("fineinstructions.embedded."):
                names = str(node.module).split(".")[2:]
                places = [HERE.joinpath(*names), *(HERE.joinpath(*names, alias.name) for alias in node.names)]
                left += [p.with_suffix(".py") for p in places if p.with_suffix(".py").exists()]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_the_digest_covers_everything_that_is_imported(name: str) -> None:
    path, code = MODELS[name]
    assert embedded_imports(path) <= set(code)
    lists = HERE if name == "genericizer" else HERE / "relations"
    assert {*lists.glob("*.txt")} <= set(code)


def test_a_changed_rule_is_another_model(tmp_path: Path) -> None:
    rule = tmp_path / "rules.txt"
    rule.write_text("a b", encoding="utf-8")
    other = tmp_path / "others.txt"
    other.write_text("a b", encoding="utf-8")
    assert code_digest(rule) != code_digest(other) != code_digest(rule, other)
    before = code_digest(rule)
    code_digest.cache_clear()
    rule.write_text("a c", encoding="utf-8")
    assert code_digest(rule) != before


def test_every_model_tells_its_digest() -> None:
    models = [genericizer.EmbeddedGenericizer(), instantiator.EmbeddedInstantiator(), judge.EmbeddedJudge()]
    models.append(compatibility.EmbeddedCompatibilityJudge())
    digests = {json.loads(model.model)["digest"] for model in models} | {RelationGate.digest}
    assert len(digests) == 5


def test_names_are_those_of_the_models() -> None:
    assert names.genericizer_name() == genericizer.EmbeddedGenericizer().model
    assert names.instantiator_name() == instantiator.EmbeddedInstantiator().model
    assert names.judge_name() == judge.EmbeddedJudge().model
    assert names.gate_digest() == RelationGate.digest


def test_whoever_asks_for_names_loads_no_model() -> None:
    code = """
import sys
from fineinstructions.models import Models
from fineinstructions.recipe import RunConfig
from fineinstructions.setup import Setup
from fineinstructions.staleness import bank_phases, pair_phases
from pathlib import Path
sources = {"queries": {"path": sys.argv[1]}, "documents": {"path": sys.argv[1]}}
config = RunConfig.model_validate(sources)
models = Models(Setup(config, Path("nowhere")))
print(len(bank_phases(config, models) + pair_phases(config, models)))
loaded = sorted(name for name in sys.modules if name.startswith("fineinstructions.embedded."))
print(*(name.rpartition(".")[2] for name in loaded))
"""
    queries = Path(__file__).parents[2] / "examples" / "data" / "queries.parquet"
    said = subprocess.run([sys.executable, "-c", code, queries], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["9", "encoder", "identity", "names", "words"]
