"""What every worker of a run is given: the recipe and where things lie that all of its units read."""

from dataclasses import dataclass
from pathlib import Path

from fineinstructions.config import from_mapping
from fineinstructions.recipe import RunConfig
from fineinstructions.runs import RunFolder, single_unit


@dataclass(frozen=True)
class Setup:
    """What every worker is given: the recipe and where the run lies."""

    config: RunConfig
    root: Path

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
        return self.root / "units" / "index" / single_unit().folder_name / "index"

    @property
    def popularity_dir(self) -> Path:
        """How many documents found each template, and what sampling makes of it."""
        return self.root / "units" / "popularity" / single_unit().folder_name


def open_setup(root: Path) -> Setup:
    """The setup of a run as its folder tells it, for workers that can be sent no objects.

    Raises:
        ConfigError: If there is no run in the folder.
    """
    folder = RunFolder.open(root)
    return Setup(from_mapping(folder.config, RunConfig, where=str(folder.recipe_file)), folder.root)
