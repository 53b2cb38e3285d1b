"""Which phases a run has, and what makes each of them stale: the settings, inputs and models that decide its bytes.

In: a recipe and its models. Out: `Phase` objects, each with a digest. The decision a reader would question: thresholds
that are applied late belong to `assemble`, so moving one of them redoes nothing that asked a model; and candidates are
a phase before matches, so that another way of sampling encodes and searches nothing again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fineinstructions import __version__
from fineinstructions.config import Config, digest, to_plain
from fineinstructions.embedded.names import gate_digest
from fineinstructions.errors import ConfigError
from fineinstructions.inputs import list_inputs
from fineinstructions.matches.sample import uses_popularity
from fineinstructions.models import Models
from fineinstructions.pairs.compatibility import SCREEN
from fineinstructions.recipe import RunConfig
from fineinstructions.runs import Phase
from fineinstructions.templates.bank import bank_files
from fineinstructions.templates.index import index_fingerprint
from fineinstructions.templates.queries import QueriesConfig

BANK_LINKS = (("queries", "genericize"), ("genericize", "merge"))
MATCH_LINKS = (("documents", "chunk"), ("chunk", "retrieve"), ("retrieve", "sample"))
PAIR_LINKS = (("instantiate", "excerpts"), ("excerpts", "judge"), ("judge", "select"))
"""What leaves the first figure enters the second: the completeness contract between stages."""
UNITS_TELL = ("path", "limit")
"""Settings of the documents that decide which units there are; a unit's id tells which rows of which file it holds."""


def _decides(*values: Any) -> str:
    """Digest of settings, models and the package version."""
    return digest(__version__, *values)


def without(config: Config | None, *names: str) -> dict[str, Any]:
    """Settings of a section, some keys left out: those that decide nothing, or that a model's own name tells."""
    return {name: value for name, value in to_plain(config).items() if name not in names} if config else {}


def bank_phases(config: RunConfig, models: Models) -> list[Phase]:
    """Phases that make the template index, each with what decides its bytes."""
    built_by = without(config.index, "batch_size", "nprobe", "online", "products")
    index = Phase("index", _decides(built_by, models.encoder.encoder_id), upstream=("templates",))
    if config.templates.index:
        made_before = _decides(index_fingerprint(Path(config.templates.index), models.encoder.encoder_id))
        return [Phase("templates", made_before), Phase("index", made_before, upstream=("templates",))]
    if config.templates.bank:
        decides = _decides(
            without(config.templates, "bank", "index", "revision"), _bank_contents(config.templates.location)
        )
        return [Phase("templates", decides), index]
    if config.queries is None:
        raise ConfigError("queries.path: missing; name the file with the queries, or a bank in templates.bank")
    return [
        Phase("queries", _decides(without(config.queries, "path"), _query_inputs(config.queries)), entry="queries"),
        Phase(
            "genericize",
            _decides(without(config.genericize, "llm"), models.genericizer_name, config.engine.query_unit_rows),
            upstream=("queries",),
            entry="genericize",
        ),
        Phase("templates", _decides(config.merge, config.genericize.model), upstream=("genericize",), entry="merge"),
        index,
    ]


def links_between(phases: Sequence[Phase]) -> list[tuple[str, str]]:
    """What leaves the first figure enters the second, for the phases of a run up to its pairs."""
    entries = {phase.name: phase.entry for phase in phases}
    links = list(BANK_LINKS) if "genericize" in entries else []
    if "pairs" not in entries:
        return links
    screened = [(SCREEN, "instantiate")] if entries["pairs"] == SCREEN else []
    return [*links, *MATCH_LINKS, ("sampled", entries["pairs"]), *screened, *PAIR_LINKS]


def _query_inputs(config: QueriesConfig) -> list[str]:
    """Contents of all files that decide which queries are kept."""
    files = list_inputs(config.path, "queries")
    for benchmark in config.benchmarks:
        files += list_inputs(benchmark.path, "queries.benchmarks")
    versions = [file.content() for file in files]
    if config.moderation.word_list:
        try:
            versions.append(digest(Path(config.moderation.word_list).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{config.moderation.word_list}: the word list cannot be read: {error}") from None
    return versions


def _bank_contents(bank: str) -> list[str]:
    return [file.content() for file in bank_files(bank)]


def _gate(config: RunConfig) -> list[Any]:
    """Digest of the gate's rules, and the seed it draws with; empty where the tier has no gate."""
    if config.instantiate.model == "openai":
        return []
    return [gate_digest(), config.seed]


def _popularity(config: RunConfig) -> list[Any]:
    """What decides more than the counts: nothing, as long as sampling does not look at them."""
    return [config.sample, config.seed] if uses_popularity(config.sample) else []


def pair_phases(config: RunConfig, models: Models) -> list[Phase]:
    """Phases from documents to pairs, each with what decides its bytes."""
    late = ("min_score", "min_expected_score", "max_template_share", "template_cap_floor")
    decides_replies = [models.instantiator_name, models.judge_name]
    screened = [without(config.compatibility, "llm"), models.compatibility.model] if config.compatibility.screen else []
    return [
        Phase(
            "candidates",
            _decides(
                without(config.documents, *UNITS_TELL),
                config.chunk,
                models.retrieve,
                config.index.nprobe,
                *_gate(config),
            ),
            upstream=("index",),
            entry="documents",
        ),
        Phase("popularity", _decides(*_popularity(config)), upstream=("candidates",)),
        Phase(
            "matches",
            _decides(config.sample, config.seed),
            upstream=("candidates", "popularity") if uses_popularity(config.sample) else ("candidates",),
            entry="sample",
            entry_figure="retrieve",
        ),
        Phase(
            "pairs",
            _decides(
                without(config.instantiate, "llm"),
                config.excerpts,
                without(config.judge, "llm", *late),
                decides_replies,
                *screened,
            ),
            upstream=("candidates", "matches"),
            entry=SCREEN if config.compatibility.screen else "instantiate",
            entry_figure="sampled",
        ),
        Phase("assemble", _decides({n: getattr(config.judge, n) for n in late}, config.seed), upstream=("pairs",)),
    ]
