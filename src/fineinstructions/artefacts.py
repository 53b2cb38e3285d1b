"""The models and banks that a recipe names: which of them come from a hub, at which revision, under which licence.

In: a recipe. Out: `Artefact` objects, for what refuses to run without a revision, for `doctor`, and for the data card.
The decision a reader would question: one whose place another key takes (a genericizer beside a ready bank) is told and
filled in like the others, so that the recipe stays whole, but no run demands its revision.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fineinstructions.backends.encoder import EMBEDDED
from fineinstructions.backends.hub import Kind, folder_licence
from fineinstructions.backends.llm import with_overrides
from fineinstructions.cards import MadeWith
from fineinstructions.config import EMPTY_REVISION
from fineinstructions.errors import ConfigError
from fineinstructions.recipe import RunConfig

EMBEDDED_LICENCE = "Apache-2.0"
"""Licence of the package, and so of the models that ship with it."""
UNKNOWN_LICENCE = "not known"
STAGES = ("genericize", "instantiate", "judge", "compatibility")
"""Sections with a ``model`` that may stand on a hub."""
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class Artefact:
    """A model or a bank behind a run."""

    role: str
    """Stage or section that uses it."""
    section: tuple[str, ...]
    """Section of the recipe that names it."""
    kind: Kind
    name: str
    revision: str | None
    """As the recipe has it: ``None`` is not asked for, an empty text refuses to run."""
    licence: str
    """As the recipe, or the model's own folder, states it; `UNKNOWN_LICENCE` where neither does."""
    is_used: bool = True
    """Whether a run asks it at all."""

    @property
    def lacks_revision(self) -> bool:
        """Whether a run cannot start before somebody has chosen its revision."""
        return self.is_used and self.revision == ""

    @property
    def revision_key(self) -> tuple[str, ...]:
        """Path of the key that holds the revision."""
        return (*self.section, "revision")

    @property
    def licence_key(self) -> tuple[str, ...]:
        """Path of the key that may hold the licence."""
        return ("licences", self.name)

    @property
    def is_on_hub(self) -> bool:
        """Whether the recipe asks for it by hub name and revision; a label of a server's model may look the same."""
        return self.revision is not None and bool(_HUB_NAME.fullmatch(self.name)) and not Path(self.name).is_dir()


def artefacts(config: RunConfig) -> list[Artefact]:
    """Every model and bank of a recipe, in flow order."""
    found = [_of_stage(config, name) for name in STAGES]
    found.insert(1, _encoder(config))
    if config.templates.hub_name:
        name = config.templates.hub_name
        found.insert(1, _artefact(config, "bank", ("templates",), "dataset", name, config.templates.revision))
    unused = "genericize" if config.templates.is_ready_made else ""
    return [replace(artefact, is_used=artefact.role != unused) for artefact in found]


def _of_stage(config: RunConfig, name: str) -> Artefact:
    stage = getattr(config, name)
    if stage.model == EMBEDDED:
        return Artefact(name, (name,), "model", "fineinstructions (embedded)", None, EMBEDDED_LICENCE)
    llm = with_overrides(config.llm, stage.llm)
    own = bool({"revision", "serve"} & set(stage.llm)) or llm.model != config.llm.model
    source = llm.serve.model if llm.serve is not None else llm.model
    return _artefact(config, name, (name, "llm") if own else ("llm",), "model", source, llm.revision)


def _encoder(config: RunConfig) -> Artefact:
    if config.encoder.engine == EMBEDDED:
        return Artefact("encoder", ("encoder",), "model", "fineinstructions (embedded)", None, EMBEDDED_LICENCE)
    return _artefact(config, "encoder", ("encoder",), "model", config.encoder.model, config.encoder.revision)


def _artefact(
    config: RunConfig, role: str, section: tuple[str, ...], kind: Kind, name: str, revision: str | None
) -> Artefact:
    own = folder_licence(Path(name)) if Path(name).is_dir() else UNKNOWN_LICENCE
    return Artefact(role, section, kind, name, revision, config.licences.get(name) or own)


def made_with(
    config: RunConfig, served_as: Mapping[str, str] | None = None, *, with_compatibility: bool = False
) -> list[MadeWith]:
    """The models and banks that a run uses, for its data card.

    Args:
        config: The recipe.
        served_as: What servers call the models of stages, by stage.
        with_compatibility: Whether the compatibility judge is asked, besides where a run screens its matches.
    """
    unused = "" if with_compatibility or config.compatibility.screen else "compatibility"
    used = (a for a in artefacts(config) if a.is_used and a.role != unused)
    told_as = served_as or {}
    return [
        MadeWith(a.role, a.name, a.revision or "", a.licence, _other_name(a, told_as.get(a.role, ""))) for a in used
    ]


def _other_name(artefact: Artefact, told: str) -> str:
    """What a server calls a model where that is another name; of a folder, which is a place, its own name only."""
    name = Path(told).name if told.startswith(("/", ".", "~")) else told
    return "" if name in (artefact.name, Path(artefact.name).name) else name


def require_revisions(found: Sequence[Artefact]) -> None:
    """Refuse a recipe whose revisions nobody has chosen.

    Raises:
        ConfigError: If a revision is an empty text; one line that names the keys and the remedy.
    """
    missing = list(dict.fromkeys(".".join(a.revision_key) for a in found if a.lacks_revision))
    if missing:
        raise ConfigError(f"{', '.join(missing)}: {EMPTY_REVISION}")
