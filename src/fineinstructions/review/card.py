"""The data card of a run, ``RUN/README.md``: what the pairs are, what made them, and under which licences they stand.

In: a run whose pairs are merged, and the models and banks of its recipe. Out: a Markdown file whose front matter the
Hugging Face hub reads, the same bytes from the same run: no date, no host, no path of this machine.

The decision a reader would question: no single licence is chosen for the whole. Every row carries those of its document
and of the queries behind its template; the front matter lists all that occur, and the tables say how often.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from fineinstructions import __version__
from fineinstructions.config import digest
from fineinstructions.markdown import Markdown, code, inert, table
from fineinstructions.records import Pair, schema_of
from fineinstructions.review.columns import PAIR_COLUMNS
from fineinstructions.review.samples import parts
from fineinstructions.runs import RunFolder, funnel
from fineinstructions.runs.durable import write_text

CARD_FILE = "README.md"
UNKNOWN, OTHER = "unknown", "other"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
         (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"),
         (10_000_000_000, "1B<n<10B"))  # fmt: skip
"""Upper ends and names of the hub's size categories."""
LARGEST = "10B<n<100B"
_HUB_LICENCE = re.compile(
    r"apache-2\.0|mit|unlicense|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[1-4]\.0|odc-by|odbl|pddl|gpl-[23]\.0|bsd-[23]-clause"
    r"|mpl-2\.0|gfdl"
)
"""Identifiers of licences that the hub knows and that documents and queries are likely to have."""
_LANGUAGE = re.compile(r"([a-z]{2,3})(?:[-_].*)?")
"""A language's code, and a country or script that is left out."""
_LICENCES = ("licence", "template_licence")
_COUNTED = (*_LICENCES, "source", "models", "judge_score")
MAX_ROWS = 50
"""Most values that a table tells by themselves. Ours."""
MAX_HELD = 100_000
"""Most different values of a column in memory. Ours."""
MAX_NAME_CHARS = 200
"""Longest source or licence that is shown whole. Ours."""


class MadeWith(NamedTuple):
    """A model or bank behind the pairs."""

    role: str
    name: str
    revision: str
    licence: str
    served_as: str = ""
    """What its server calls it, where that is another name."""


def write_card(
    run: RunFolder, made_with: Sequence[MadeWith], more_tables: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Write the data card, unless the one that is there was made from the same run.

    Args:
        run: The run; its pairs are merged.
        made_with: The models and banks of its recipe.
        more_tables: Further tables, as a name to a folder by split.

    Raises:
        DataError: If a unit is missing or damaged.
    """
    pairs = run.published("pairs")
    path = run.root / CARD_FILE
    contents = [run.content(phase.name) for phase in run.phases]
    mark = digest(__version__, contents, pairs.seal if pairs else "", [list(m) for m in made_with], more_tables or {})
    line = f"<!-- made from {mark} -->"
    if path.exists() and line in path.read_text(encoding="utf-8", errors="replace"):
        return
    write_text(path, f"{_card(run, made_with, more_tables or {})}\n{line}\n")


def _card(run: RunFolder, made_with: Sequence[MadeWith], more_tables: Mapping[str, Mapping[str, str]]) -> str:
    found = _count(run)
    scores = found.tallies["judge_score"]
    number = scores.num_rows
    front = yaml.safe_dump(_front_matter(found, number, more_tables), sort_keys=False, allow_unicode=True)
    sections = [
        f"---\n{front}---\n",
        "# Instruction-answer pairs grounded in documents\n",
        f"{number:,} pairs, made by fineinstructions {__version__} with the method of *FineInstructions* "
        "([arXiv:2601.22146](https://arxiv.org/abs/2601.22146)): templates of real user queries are matched to "
        "documents, filled in, and answered by quoting the document; a judge keeps the good ones. Every row holds the "
        "offsets of its quotations, its lineage and its licences.\n",
        *_section("How to load", _loading(more_tables)),
        *_section("What made them", _making(run, made_with, found.tallies["models"])),
        *_section("Licences", _licences(found)),
        *_section("Sources of the documents", table(("source", "pairs"), _rows(found.tallies["source"]))),
        *_section("Judge's scores", table(("score", "pairs"), sorted(scores.items(), reverse=True))),
        *_section("From stage to stage", _stages(run)),
        *_section("Columns", _columns()),
    ]
    return "\n".join(sections)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from (f"## {title}\n", "\n".join(lines), "")


class Tally:
    """Rows by value. Of very many values the rarer half is let go, as often as it must be, and only its rows are known.

    Args:
        max_held: Most values that are held at a time.

    Example:
        >>> tally = Tally(max_held=2)
        >>> for value in ("often", "often", "once", "twice", "often"):
        ...     tally.add(value, 1)
        >>> tally.items(), tally.num_let_go, tally.num_rows
        ([('often', 3)], 2, 5)
    """

    def __init__(self, max_held: int = MAX_HELD) -> None:
        self._max_held = max_held
        self._counts: Counter[Any] = Counter()
        self.num_let_go = 0
        """Rows whose values are not known any more."""

    def add(self, value: Any, number: int) -> None:
        """Count some rows of one value."""
        self._counts[value] += number
        if len(self._counts) > self._max_held:
            held = Counter(dict(_ranked(self._counts)[: self._max_held // 2]))
            self.num_let_go += self._counts.total() - held.total()
            self._counts = held

    def __contains__(self, value: Any) -> bool:
        return value in self._counts

    def items(self) -> list[tuple[Any, int]]:
        """Values and numbers, the most frequent first, equal ones by name."""
        return _ranked(self._counts)

    @property
    def num_rows(self) -> int:
        """All rows."""
        return self._counts.total() + self.num_let_go


@dataclass
class _Found:
    """What the pairs have."""

    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in _COUNTED})
    """By column; of a row with several licences each of them is counted."""
    hub_licences: set[str] = field(default_factory=set)
    languages: set[str] = field(default_factory=set)


def _count(run: RunFolder) -> _Found:
    found = _Found()
    for file in parts(run.root, "pairs"):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=65_536, columns=[*_COUNTED, "metadata"]):
            found.languages.update(_languages(batch.column("metadata")))
            for name, tally in found.tallies.items():
                for counted in pc.value_counts(batch.column(name)).to_pylist():
                    value, number = counted["values"], counted["counts"]
                    if name not in _LICENCES:
                        tally.add(value, number)
                        continue
                    for licence in sorted({part.strip() for part in value.split(";")}):
                        if licence not in tally:
                            found.hub_licences.add(hub_licence(licence))
                        tally.add(licence, number)
    return found


def _languages(metadata: pa.StringArray) -> Iterator[str]:
    """Codes of the languages that documents name for themselves."""
    named = metadata.filter(pc.match_substring_regex(metadata, '"lang(uage)?"'))
    for facts in map(json.loads, pc.unique(named).to_pylist()):
        told = [facts[key] for key in ("lang", "language") if isinstance(facts.get(key), str)]
        code_found = _LANGUAGE.fullmatch(told[0].strip().lower()) if told else None
        if code_found:
            yield code_found[1]


def hub_licence(licence: str) -> str:
    """A licence as the hub spells it.

    Example:
        >>> [hub_licence(name) for name in ("CC-BY-SA 3.0", "Unlicense (public domain)", "", "as is")]
        ['cc-by-sa-3.0', 'unlicense', 'unknown', 'other']
    """
    plain = re.sub(r"[\s_]+", "-", re.sub(r"\(.*?\)", "", licence).strip().lower())
    if not plain:
        return UNKNOWN
    return plain if _HUB_LICENCE.fullmatch(plain) else OTHER


def _front_matter(found: _Found, number: int, more_tables: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    names = sorted(found.hub_licences) or [UNKNOWN]
    language = {"language": sorted(found.languages)} if found.languages else {}
    other = {"license_name": "named-in-each-row"} if OTHER in names else {}
    configs = [{"config_name": "pairs", "data_files": "pairs/*.parquet", "default": True}]
    configs += [{"config_name": "templates", "data_files": "templates/*.parquet"}]
    configs += [
        {"config_name": name, "data_files": [{"split": s, "path": f"{f}/*.parquet"} for s, f in folders.items()]}
        for name, folders in more_tables.items()
    ]
    return {
        "license": names[0] if len(names) == 1 else names,
        **other,
        **language,
        "size_categories": [next((name for end, name in SIZES if number < end), LARGEST)],
        "task_categories": ["text-generation", "question-answering"],
        "tags": ["synthetic", "instruction-tuning", "grounded", "fineinstructions"],
        "configs": configs,
    }


def _loading(more_tables: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    yield "```python\nfrom datasets import load_dataset\n"
    yield 'pairs = load_dataset("PATH_OR_NAME", "pairs", split="train")  # templates: "templates"'
    for name in more_tables:
        yield f'{name} = load_dataset("PATH_OR_NAME", "{name}")'
    yield "```\n\n`text` holds a pair in the paper's training format, `rejected/` what did not become a pair, and why."


def _making(run: RunFolder, made_with: Sequence[MadeWith], models: Tally) -> Iterator[str]:
    rows = [
        (m.role, f"{m.name} (served as {m.served_as})" if m.served_as else m.name, m.revision or "-", m.licence)
        for m in made_with
    ]
    yield from table(("stage", "model or bank", "revision", "licence"), rows)
    yield "\nAs every pair's `models` names them, with the digests of their prompts:\n"
    yield from table(("models", "pairs"), _rows(models, code))
    keys = ("chunk.coverage_chunks", "chunk.sigma", "chunk.alpha", "retrieve.min_cosine", "excerpts.min_ratio",
            "judge.min_score", "judge.min_expected_score", "judge.protocol", "seed")  # fmt: skip
    yield "\nSettings that decide most; all of them stand in `recipe.resolved.yaml`:\n"
    yield from table(("key", "value"), [(code(key), _setting(run.config, key)) for key in keys])


def _setting(config: Mapping[str, Any], key: str) -> str:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    unset = "the encoder's own, or the gate's" if key == "retrieve.min_cosine" else "-"
    return unset if value is None else str(value)


def _licences(found: _Found) -> Iterator[str]:
    yield "Of the documents that answers are quoted from (`licence`):\n"
    yield from _licence_table(found.tallies["licence"])
    yield "\nOf the queries behind the templates (`template_licence`; a template may have several):\n"
    yield from _licence_table(found.tallies["template_licence"])


def _licence_table(tally: Tally) -> Iterator[str]:
    names = dict(tally.items()[:MAX_ROWS])
    on_hub = {_shown(name): hub_licence(name) for name in names}
    rows = ((name, on_hub.get(name, ""), number) for name, number in _rows(tally))
    return table(("licence", "on the hub", "pairs"), rows)


def _shown(value: str) -> Markdown:
    return inert(value or "none named", MAX_NAME_CHARS)


def _rows(tally: Tally, show: Callable[[str], Markdown] = _shown) -> Iterator[tuple[Markdown, int]]:
    """The most frequent values with their numbers, and one row for all others."""
    items = tally.items()
    yield from ((show(value), number) for value, number in items[:MAX_ROWS])
    others = sum(number for _, number in items[MAX_ROWS:]) + tally.num_let_go
    if others:
        too_many = f" (there are more than {MAX_HELD:,} different ones, so numbers may be too low)"
        yield Markdown(f"others{too_many if tally.num_let_go else ''}"), others


def _stages(run: RunFolder) -> Iterator[str]:
    rows = []
    for figure in funnel(run):
        account = figure.account
        lost = Counter(account.rejected) + Counter({f"{k} (failed)": n for k, n in account.failed.items()})
        merged = [f"merged with another {account.num_merged:,}"] if account.num_merged else []
        why = ", ".join([*merged, *(f"{reason} {number:,}" for reason, number in _ranked(lost))])
        rows.append((figure.stage, f"{account.num_in:,}", f"{account.num_out:,}", why))
    return table(("stage", "in", "out", "turned away"), rows)


def _columns() -> Iterator[str]:
    schema = schema_of(Pair)
    return table(
        ("column", "type", "meaning"),
        [(f.name, code(str(f.type)), Markdown(PAIR_COLUMNS.get(f.name, ""))) for f in schema],
    )


def _ranked(counts: Counter[Any]) -> list[tuple[Any, int]]:
    """Values and numbers, the most frequent first, equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
