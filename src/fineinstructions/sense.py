"""What a recipe must not ask, although each of its keys is right by itself: told before any work is done."""

from pathlib import Path

from fineinstructions.artefacts import STAGES, artefacts, require_revisions
from fineinstructions.errors import ConfigError
from fineinstructions.recipe import RunConfig


def check_sense(config: RunConfig, out: Path) -> None:
    """Refuse what would only be noticed late, or would eat its own input.

    Args:
        config: The recipe.
        out: The run folder.

    Raises:
        ConfigError: One line that names the key and the remedy.
    """
    require_revisions(artefacts(config))
    bank = config.templates.bank
    if bank and config.templates.index:
        raise ConfigError("templates.index: takes the place of templates.bank; name only one of the two")
    if bank and Path(bank).resolve() == out.resolve():
        raise ConfigError(f"{out}: is the bank of the recipe too; choose another --out, or the bank would be replaced")
    index = config.templates.index
    if index and Path(index).resolve().is_relative_to(out.resolve()):
        raise ConfigError(
            f"{index}: lies inside the run folder {out}, which replaces its own index; choose another --out"
        )
    for name in STAGES:
        stage = getattr(config, name)
        if stage.model == "openai" and not (stage.llm.get("model") or config.llm.model):
            raise ConfigError(
                f"llm.model: missing, but {name} asks a model; name it as its server knows it, or give its folder"
            )
