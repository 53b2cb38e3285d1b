"""What every worker of a run is given: the recipe and where things lie that all of its units read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fineinstructions.config import from_mapping
from fineinstructions.recipe import RunConfig
from fineinstructions.runs import RunFolder, single_unit
from fineinstructions.runs.layout import Layout


@dataclass(frozen=True)
class Setup:
    """What every worker is given: the recipe and where the run lies."""

    config: RunConfig
    root: Path
    served_gpus: tuple[str, ...] = ()
    """GPUs of this machine that servers have which the driver has started."""
    findings: Path | None = None
    """Folder for what is found out about models, where the run folder is only looked at; None for the run folder."""

    @property
    def input_dir(self) -> Path:
        """Converted input files and the rows with repeated ids."""
        return self.root / "input"

    @property
    def cache_dir(self) -> Path:
        """Replies of language models."""
        return self.root / "cache"

    @property
    def batches_dir(self) -> Path:
        """Batch files: requests to submit and results."""
        return self.root / "batches"

    @property
    def index_dir(self) -> Path:
        """The template index: the run's own, or one that was made before."""
        if self.config.templates.index:
            return Path(self.config.templates.index)
        return Layout(self.root).fetched("index", single_unit()) / "index"

    @property
    def popularity_dir(self) -> Path:
        """How many documents found each template, and what sampling makes of it."""
        return Layout(self.root).fetched("popularity", single_unit())

    @property
    def serving_file(self) -> Path:
        """Whom stages ask whose servers the driver has started; stands there as long as the servers do."""
        return self.root / "serving.json"

    def asking(self, servers: Mapping[str, Mapping[str, Any]], gpus: Sequence[str] = ()) -> "Setup":
        """The same run, some stages of which ask servers that are running now.

        Args:
            servers: The whole ``llm`` section of a stage, by its name.
            gpus: What the servers have of this machine's GPUs.
        """
        sections = {stage: getattr(self.config, stage) for stage in servers}
        changed = {stage: s.model_copy(update={"llm": dict(servers[stage])}) for stage, s in sections.items()}
        return replace(self, config=self.config.model_copy(update=changed), served_gpus=tuple(gpus))


def open_setup(root: Path) -> Setup:
    """The setup of a run as its folder tells it, for workers that can be sent no objects.

    Raises:
        ConfigError: If there is no run in the folder.
    """
    folder = RunFolder.open(root)
    setup = Setup(from_mapping(folder.config, RunConfig, where=str(folder.recipe_file)), folder.root)
    if not setup.serving_file.exists():
        return setup
    return setup.asking(json.loads(setup.serving_file.read_text(encoding="utf-8")))
