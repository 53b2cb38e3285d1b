"""What an export makes: its settings, and of which rows every arm consists.

The decision a reader would question: an arm is a mixture of sources by weights, also where it has one source only.
Sources are what rows are made of (documents, pairs, documents with their pairs, rephrased documents); arms are what is
compared, and all arms of an export get the same number of tokens.
"""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fineinstructions.backends.llm_config import LlmConfig, with_overrides
from fineinstructions.config import Config
from fineinstructions.corpus.render import View
from fineinstructions.corpus.rephrase import NEMOTRON_TOKENS, STYLES, RephraseConfig
from fineinstructions.corpus.sift import SiftConfig
from fineinstructions.engines.engine import LaunchConfig
from fineinstructions.errors import ConfigError

Format = Literal["parquet", "jsonl", "lingua", "torchtitan", "hf"]
Compression = Literal["zstd", "gzip", "none"]
DOCUMENTS, PAIRS, WITH_PAIRS = "documents", "pairs", "documents_with_pairs"
SOURCES = (DOCUMENTS, PAIRS, WITH_PAIRS, *STYLES)
"""What rows are made of; the last ones by a language model."""
REJECTED = "rejected"
"""Folder of the rows that did not make it; no arm may have that name."""
SHUFFLED_FORMATS = ("lingua", "torchtitan")
"""Programs that read rows in the order of their files."""
PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "standard": {DOCUMENTS: 1.0},
        "fineinstructions": {PAIRS: 1.0},
        "ipt": {WITH_PAIRS: 1.0},
        "wrap": {DOCUMENTS: 1.0, "wikipedia_style": 1.0},
        "nemotron_qa": {"diverse_qa": 1.0},
        "nemotron_mixture": NEMOTRON_TOKENS,
    }
)
"""Arms that go by name. WRAP mixes rephrased pages one to one with the originals (arXiv:2401.16380)."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,60}")


class ExportConfig(Config):
    """What an export makes of a run."""

    format: Format = "parquet"
    """Files: Parquet, JSON lines, or the layout of Lingua, torchtitan or the Hugging Face hub."""
    compression: Compression = "zstd"
    """Of JSON lines: ``zstd``, ``gzip`` or ``none``. Parquet always has zstd, files for Lingua have none. Ours."""
    view: View = "text"
    """Columns of a pair: the paper's training text, or other forms of the same texts. Default: paper, section 4.2."""
    arms: list[str] | dict[str, dict[str, float]] = Field(default=["fineinstructions"])
    """Names of arms, or a mapping from a name to the weights of its sources, in tokens."""
    equal_tokens: bool = True
    """Cut all arms to the tokens of the smallest. Default: paper, section 4.2; which rows stay is a seeded choice of
    ours."""
    tokenizer: str = "bytes"
    """``bytes``, a tokenizer.json, a tiktoken rank file, or a folder with one of them. The paper's is Llama 3's, which
    does not ship with this package."""
    budget: Literal["document", "none"] = "document"
    """``document``: pairs cost at most what their documents would; ``none``: all pairs. Default: paper, section 4.2."""
    documents: Literal["all", "with_pairs", "same"] = "all"
    """Documents that rows may be made of: ``all`` of the run; those that have pairs, from which every arm takes its own
    (``with_pairs``); or ``same``: every arm of all documents that have pairs, each with as many tokens in one arm as in
    another. A document's pairs then take at most its own tokens, nothing is carried over, and its text is cut to the
    tokens of its pairs. Default: paper, section 4.2; the others are ours."""
    sift: SiftConfig = SiftConfig()
    """Which pairs are taken at all."""
    ranks: int = Field(default=1, ge=1, le=65_536)
    """Data-parallel ranks of the training, for ``lingua``. Ours."""
    shuffle: bool = False
    """Shuffle all rows of an arm. Files for Lingua and torchtitan are always shuffled, and so is a mixture. Ours."""
    rows_per_part: int = Field(default=1_000_000, ge=1)
    """Most rows in a file, where the format has no rule of its own. Ours."""
    bytes_per_part: int = Field(default=512 << 20, ge=1)
    """Uncompressed bytes in a file, about. Ours."""
    llm: LlmConfig = LlmConfig()
    """The language model that rephrases documents."""
    rephrase: RephraseConfig = RephraseConfig()
    """How documents are rephrased, for arms that have such rows."""
    seed: int = 0
    """Seed of every random choice, together with the row's id."""
    unit_rows: int = Field(default=20_000, ge=1)
    """Most pairs in a work unit; changes no result. Ours."""
    engine: LaunchConfig = LaunchConfig()
    """Where tokens are counted; changes no result."""

    @field_validator("arms")
    @classmethod
    def _known_arms(cls, arms: list[str] | dict[str, dict[str, float]]) -> list[str] | dict[str, dict[str, float]]:
        if not arms:
            raise ValueError("name at least one arm")
        for name in arms:
            if not _NAME.fullmatch(name) or name == REJECTED:
                raise ValueError(f"{name!r} is no name for an arm; use small letters, digits, _ and -, not {REJECTED}")
        if isinstance(arms, list):
            for name in arms:
                if name not in PRESETS:
                    raise ValueError(
                        f"unknown arm {name!r}; there are {', '.join(PRESETS)}, or give weights of sources"
                    )
            return arms
        for name, weights in arms.items():
            unknown = [source for source in weights if source not in SOURCES]
            if not weights or unknown:
                wrong = f"has no source {unknown[0]!r}" if unknown else "needs sources"
                raise ValueError(f"arm {name!r} {wrong}; there are {', '.join(SOURCES)}")
            if not all(0 < weight < float("inf") for weight in weights.values()):
                raise ValueError(f"arm {name!r}: weights must be above 0")
        return arms

    @model_validator(mode="after")
    def _fits_together(self) -> "ExportConfig":
        whole_texts = sorted({source for arm in self.mixtures.values() for source in arm} - {PAIRS})
        if self.view != "text" and whole_texts:
            raise ValueError(f"view: {self.view} needs pairs, but {whole_texts[0]} have no instruction; use text")
        asked = with_overrides(self.llm, self.rephrase.llm)
        if self.styles and asked.serve is not None:
            raise ValueError("llm.serve: an export starts no servers; start one and name it in llm.base_url")
        if self.styles and not asked.model:
            raise ValueError(f"llm.model: missing, but {self.styles[0]} asks a model; name it as its server knows it")
        if self.styles and asked.engine == "batch":
            raise ValueError("llm.engine: documents are not rephrased by batch files; use server or transformers")
        if self.compression != "zstd" and self.format != "jsonl":
            raise ValueError(
                f"compression: only jsonl has a choice; leave it out, or set format to jsonl ({self.format})"
            )
        if self.view != "text" and self.format in SHUFFLED_FORMATS:
            raise ValueError(f"view: {self.format} reads text only")
        if self.has_same_documents and self.styles:
            raise ValueError(
                f"documents: same cuts documents to the tokens of their pairs, and what a model rephrased"
                f" ({self.styles[0]}) cannot be cut that way; leave such arms out, or use with_pairs"
            )
        if self.has_same_documents and (self.budget == "none" or not self.equal_tokens):
            wrong = "budget: none" if self.budget == "none" else "equal_tokens: false"
            raise ValueError(f"{wrong}: documents: same gives every arm the tokens of a document's pairs; leave it out")
        return self

    @property
    def ending(self) -> str:
        """How names of files with rows end."""
        if self.format == "jsonl":
            return {"zstd": "jsonl.zst", "gzip": "jsonl.gz", "none": "jsonl"}[self.compression]
        return "jsonl" if self.format == "lingua" else "parquet"

    @property
    def mixtures(self) -> dict[str, dict[str, float]]:
        """Every arm with the shares of its sources, which add up to 1."""
        named = {name: PRESETS[name] for name in self.arms} if isinstance(self.arms, list) else self.arms
        return {
            arm: {source: weight / sum(weights.values()) for source, weight in weights.items()}
            for arm, weights in named.items()
        }

    @property
    def sources(self) -> list[str]:
        """Sources that any arm has rows of, in the order of `SOURCES`."""
        used = {source for weights in self.mixtures.values() for source in weights}
        return [source for source in SOURCES if source in used]

    @property
    def styles(self) -> list[str]:
        """Ways in which documents are rephrased."""
        return [source for source in self.sources if source in STYLES]

    @property
    def has_same_documents(self) -> bool:
        """Whether every arm is made of the same documents, with the same tokens of each."""
        return self.documents == "same"

    def is_shuffled(self, arm: str) -> bool:
        """Whether the rows of an arm are written in random order."""
        return self.shuffle or self.format in SHUFFLED_FORMATS or len(self.mixtures[arm]) > 1


def parse_arms(words: Sequence[str]) -> list[str] | dict[str, dict[str, float]]:
    """Arms as the command line has them.

    Args:
        words: Names of arms, or ``NAME=SOURCE:WEIGHT,SOURCE:WEIGHT``.

    Raises:
        ConfigError: If a mixture is not written like this, or an arm comes twice.

    Example:
        >>> parse_arms(["standard", "half=documents:1,pairs:1"])
        {'standard': {'documents': 1.0}, 'half': {'documents': 1.0, 'pairs': 1.0}}
    """
    names = [word.partition("=")[0] for word in words]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ConfigError(f"--arm {repeated}: given twice; name every arm once")
    if all("=" not in word for word in words):
        return list(words)
    found: dict[str, dict[str, float]] = {}
    for word in words:
        name, equals, mixture = word.partition("=")
        if not equals and name not in PRESETS:
            raise ConfigError(f"--arm {word}: unknown; there are {', '.join(PRESETS)}, or NAME=SOURCE:WEIGHT,...")
        found[name] = dict(map(_weight, mixture.split(","))) if equals else dict(PRESETS[name])
    return found


def _weight(part: str) -> tuple[str, float]:
    source, _, weight = part.partition(":")
    try:
        return source.strip(), float(weight)
    except ValueError:
        raise ConfigError(f"--arm: {part!r} is no source with its weight; write documents:0.5") from None


def arm_tokens(capacities: Mapping[str, int], mixtures: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    """How many tokens every arm can have, by its sources and their shares.

    Args:
        capacities: Tokens of all rows of every source.
        mixtures: Shares of the sources of every arm; they add up to 1.

    Example:
        >>> arm_tokens({"documents": 100, "pairs": 30}, {"a": {"documents": 1}, "b": {"documents": 0.5, "pairs": 0.5}})
        {'a': 100, 'b': 60}
    """
    return {
        arm: min(int(capacities[source] / share + 1e-6) for source, share in shares.items())
        for arm, shares in mixtures.items()
    }
