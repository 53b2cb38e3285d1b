"""What every worker of a run is given: the recipe and where things lie that all of its units read."""

from dataclasses import dataclass
from pathlib import Path

from fineinstructions.recipe import RunConfig
from fineinstructions.runs import single_unit


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
