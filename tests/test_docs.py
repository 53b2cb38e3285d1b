"""The documentation says what is: generated pages are up to date, and what the README tells a reader to type exists."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from fineinstructions.cli import app, reference
from fineinstructions.recipe import RunConfig
from fineinstructions.training.contrastive import TrainEmbedderConfig
from fineinstructions.training.sft import TrainGenericizerConfig, TrainInstantiatorConfig

ROOT = Path(__file__).parent.parent
STUDENTS = {
    "genericizer": TrainGenericizerConfig,
    "instantiator": TrainInstantiatorConfig,
    "embedder": TrainEmbedderConfig,
}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("name", ["cli.md", "config.md", "recipe.schema.json"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == reference.pages()[name], "run `make docs`"


def test_every_key_of_a_recipe_is_described() -> None:
    rows = [line for line in reference.config_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    for row in rows:
        assert row.split(" | ")[3].strip(" |"), f"no description: {row}"


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda p: p.name)
def test_recipes_are_valid(recipe: Path) -> None:
    from fineinstructions.config import load
    from fineinstructions.experiment_recipe import ExperimentConfig
    from fineinstructions.training.recipe import PretrainConfig

    kinds = {"experiment": ExperimentConfig, "pretrain": PretrainConfig, "train": None}
    command = re.search(r"fineinstructions (experiment|pretrain|train)(?: (\w+))? recipes/", recipe.read_text("utf-8"))
    found = kinds[command[1]] or STUDENTS[command[2]] if command else RunConfig
    load(recipe, found)


def typed_lines(page: Path) -> list[str]:
    """Lines of the shell blocks of a page, comments and prompts taken off, continued lines joined."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").strip() for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_the_documentation_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for line in typed_lines(page):
        words = [Path(w).name if w.endswith("fineinstructions") else w for w in shlex.split(line, comments=True)]
        if words[:1] == ["make"]:
            assert {w for w in words[1:] if "=" not in w} <= targets, line
        elif words[:1] == ["fineinstructions"]:
            check_command(words[1:], line)


def check_command(words: list[str], line: str) -> None:
    command = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    known = {option for p in command.params for option in [*p.opts, *p.secondary_opts]} | {"--help", "--version"}
    assert not hasattr(command, "commands") or set(words) <= known, f"no such command: {line}"
    assert {w.split("=")[0] for w in words if w.startswith("-")} <= known, f"no such option: {line}"
    for word in words:
        if word.startswith(("recipes/", "examples/")):
            assert (ROOT / word).exists(), f"no such file: {line}"


def test_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks run as they stand, in a folder with recipes and data; the run is cut to a few documents."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for name in ("recipes", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        short = block.replace('out="runs/demo"', 'out="runs/demo", overrides=["documents.limit=8", "engine.workers=0"]')
        exec(compile(short, "README.md", "exec"), {"__name__": "__main__"})
