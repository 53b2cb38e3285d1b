"""The recipe of a run: every stage's settings, listed in flow order.

The smallest recipe is two lines, ``queries: {path: ...}`` and ``documents: {path: ...}``.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fineinstructions.backends.encoder import EncoderConfig
from fineinstructions.backends.llm_config import LlmConfig
from fineinstructions.config import Config, from_mapping, load, to_plain
from fineinstructions.engines.engine import LaunchConfig
from fineinstructions.engines.resources import Resources, visible_gpus
from fineinstructions.matches.chunk import ChunkConfig
from fineinstructions.matches.retrieve import RetrieveConfig
from fineinstructions.matches.sample import SampleConfig
from fineinstructions.pairs.compatibility import CompatibilityConfig
from fineinstructions.pairs.excerpts import ExcerptsConfig
from fineinstructions.pairs.instantiate import InstantiateConfig
from fineinstructions.pairs.judge import JudgeConfig
from fineinstructions.readers import DocumentsConfig
from fineinstructions.runs.head import LEASE_SECONDS
from fineinstructions.silver.choose import DistillConfig
from fineinstructions.templates.bank import TemplatesConfig
from fineinstructions.templates.genericize import GenericizeConfig
from fineinstructions.templates.index import IndexConfig
from fineinstructions.templates.merge import MergeConfig
from fineinstructions.templates.queries import QueriesConfig

PhaseName = Literal[
    "queries",
    "genericize",
    "templates",
    "index",
    "candidates",
    "popularity",
    "matches",
    "pairs",
    "assemble",
    "compatibility",
    "silver",
]

ENCODING = ("index", "candidates", "compatibility")
"""Phases whose workers hold an encoder."""


class EngineConfig(LaunchConfig):
    """Where the work is done, and how it is cut and spread; changes no result, except that units decide which documents
    share a batch.

    Another cut makes other units: those are made again, with ``--redo``. `query_unit_rows` stands in what makes
    ``genericize`` and everything after it stale.
    """

    resources: dict[PhaseName, Resources] = Field(default={})
    """What each worker of a phase is given, by the phase's name. Where it says nothing of a phase that encodes, a
    worker with an encoder of sentence-transformers has one GPU, if this machine or the Ray cluster that does the work
    has any; what a Slurm cluster has is not known, so there it has to be said. Ours."""
    unit_bytes: int = Field(default=1 << 20, ge=1)
    """Uncompressed bytes of documents in a work unit, about. Ours."""
    unit_rows: int = Field(default=1000, ge=1)
    """Most documents in a work unit. Ours."""
    query_unit_rows: int = Field(default=10_000, ge=1)
    """Most queries in a work unit; another number makes templates, and all that follows, again. Ours."""


class OutputConfig(Config):
    """How the merged outputs are cut into files."""

    rows_per_part: int | None = Field(default=None, ge=1)
    """Most rows in a part file; ``None`` for any number, so that its size decides. Ours."""
    bytes_per_part: int = Field(default=256 << 20, ge=1)
    """Bytes of a part file on the disk, about; only the last part of a table is smaller. Ours."""
    lease_seconds: float = Field(default=LEASE_SECONDS, gt=0)
    """Of a run on a store: how long its driver may be silent until another may take over. Ours."""


class RunConfig(Config):
    """A recipe: everything that decides what a run makes."""

    queries: QueriesConfig | None = None
    """1. Queries: read, clean, de-duplicate, scrub, decontaminate."""
    genericize: GenericizeConfig = GenericizeConfig()
    """1. Queries to instruction templates."""
    merge: MergeConfig = MergeConfig()
    """1. Drafts of all queries to one template per meaning."""
    templates: TemplatesConfig = TemplatesConfig()
    """1. A bank instead of queries."""
    encoder: EncoderConfig = EncoderConfig()
    """1. and 2. The encoder of descriptions and documents."""
    index: IndexConfig = IndexConfig()
    """1. The template index."""
    documents: DocumentsConfig | None = None
    """2. Documents."""
    chunk: ChunkConfig = ChunkConfig()
    """2. Documents to vectors."""
    retrieve: RetrieveConfig = RetrieveConfig()
    """2. Vectors to candidates."""
    sample: SampleConfig = SampleConfig()
    """2. Candidates to matches."""
    instantiate: InstantiateConfig = InstantiateConfig()
    """3. Matches to drafts."""
    excerpts: ExcerptsConfig = ExcerptsConfig()
    """3. Drafts to verbatim answers."""
    judge: JudgeConfig = JudgeConfig()
    """3. Answers to judged pairs."""
    compatibility: CompatibilityConfig = CompatibilityConfig()
    """Whether documents can answer templates, for `distill`."""
    distill: DistillConfig = DistillConfig()
    """Training data for students, for `distill`."""
    llm: LlmConfig = LlmConfig()
    """The model server of every stage whose ``model`` is ``openai``, and of an encoder behind a server."""
    engine: EngineConfig = EngineConfig()
    """Workers and work units."""
    output: OutputConfig = OutputConfig()
    """Part files."""
    licences: dict[str, str] = Field(default_factory=dict)
    """Licence of every model and bank on a hub, by its name, for the data card; changes nothing else. `doctor RECIPE
    --resolve` fills in what the hub states where an empty text stands."""
    seed: int = 0
    """Seed of every random choice, together with the stage and the record's id."""

    def resources_of(self, phase: str) -> Resources:
        """What a worker of a phase is given: as the recipe says, or one GPU for each encoder that uses one."""
        named = {str(name): given for name, given in self.engine.resources.items()}
        if phase in named:
            return named[phase]
        takes_one = self.engine.kind == "local" and self.could_use_gpu(phase) and bool(visible_gpus())
        return Resources(gpus=1) if takes_one else Resources()

    def could_use_gpu(self, phase: str) -> bool:
        """Whether a phase has an encoder that uses a GPU where it sees one, and the recipe says nothing of it."""
        has_gpu_encoder = self.encoder.engine == "sentence-transformers" and self.encoder.device in ("auto", "cuda")
        return phase in ENCODING and has_gpu_encoder and phase not in map(str, self.engine.resources)


def as_config(recipe: RunConfig | dict[str, Any] | str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A recipe given as a path, a mapping or a checked config.

    Raises:
        ConfigError: If it cannot be read or a setting is wrong.
    """
    if isinstance(recipe, RunConfig):
        return from_mapping(to_plain(recipe), RunConfig, overrides) if overrides else recipe
    if isinstance(recipe, dict):
        return from_mapping(recipe, RunConfig, overrides)
    return load(recipe, RunConfig, overrides)
