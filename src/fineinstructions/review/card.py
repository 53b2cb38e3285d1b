"""The data card of a run, ``RUN/README.md``: what the pairs are, what made them, and under which licences they stand.

In: a run whose pairs are merged, and the models and banks of its recipe. Out: a Markdown file whose front matter the
Hugging Face hub reads, the same bytes from the same run: no date, no host, no path of this machine.

The decision a reader would question: no single licence is chosen for the whole. Every row carries those of its document
and of the queries behind its template; the front matter lists all that occur, and the tables say how often.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from fineinstructions import __version__
from fineinstructions.config import digest
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


class MadeWith(NamedTuple):
    """A model or bank behind the pairs."""

    role: str
    name: str
    revision: str
    licence: str


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
    counts = _counts(run, ("licence", "template_licence", "source", "models", "judge_score"))
    number = sum(counts["licence"].values())
    licences = _apart(counts["licence"]) + _apart(counts["template_licence"])
    front = yaml.safe_dump(_front_matter(licences, number, more_tables), sort_keys=False, allow_unicode=True)
    sections = [
        f"---\n{front}---\n",
        "# Instruction-answer pairs grounded in documents\n",
        f"{number:,} pairs, made by fineinstructions {__version__} with the method of *FineInstructions* "
        "([arXiv:2601.22146](https://arxiv.org/abs/2601.22146)): templates of real user queries are matched to "
        "documents, filled in, and answered by quoting the document; a judge keeps the good ones. Every row holds the "
        "offsets of its quotations, its lineage and its licences.\n",
        *_section("How to load", _loading(more_tables)),
        *_section("What made them", _making(run, made_with, counts)),
        *_section("Licences", _licences(counts)),
        *_section("Sources of the documents", _table(("source", "pairs"), _ranked(counts["source"]))),
        *_section("Judge's scores", _table(("score", "pairs"), sorted(counts["judge_score"].items(), reverse=True))),
        *_section("From stage to stage", _stages(run)),
        *_section("Columns", _columns()),
    ]
    return "\n".join(sections)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from (f"## {title}\n", "\n".join(lines), "")


def _counts(run: RunFolder, columns: Sequence[str]) -> dict[str, Counter[Any]]:
    """How often every value of some columns occurs among the pairs."""
    counts: dict[str, Counter[Any]] = {name: Counter() for name in columns}
    for file in parts(run.root, "pairs"):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=65_536, columns=list(columns)):
            for name in columns:
                for found in pc.value_counts(batch.column(name)).to_pylist():
                    counts[name][found["values"]] += found["counts"]
    return counts


def _apart(counts: Counter[str]) -> Counter[str]:
    """Rows per licence, where a row may name several."""
    found: Counter[str] = Counter()
    for names, number in counts.items():
        for name in {part.strip() for part in names.split(";")}:
            found[name] += number
    return found


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


def _front_matter(licences: Counter[str], number: int, more_tables: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    names = sorted({hub_licence(name) for name in licences}) or [UNKNOWN]
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
        "language": ["en"],
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


def _making(run: RunFolder, made_with: Sequence[MadeWith], counts: Mapping[str, Counter[Any]]) -> Iterator[str]:
    rows = [(m.role, m.name, m.revision or "-", m.licence) for m in made_with]
    yield from _table(("stage", "model or bank", "revision", "licence"), rows)
    yield "\nAs every pair's `models` names them, with the digests of their prompts:\n"
    yield from _table(("models", "pairs"), [(f"`{models}`", n) for models, n in _ranked(counts["models"])])
    keys = ("chunk.coverage_chunks", "chunk.sigma", "chunk.alpha", "retrieve.min_cosine", "excerpts.min_ratio",
            "judge.min_score", "judge.min_expected_score", "judge.protocol", "seed")  # fmt: skip
    yield "\nSettings that decide most; all of them stand in `recipe.resolved.yaml`:\n"
    yield from _table(("key", "value"), [(f"`{key}`", _setting(run.config, key)) for key in keys])


def _setting(config: Mapping[str, Any], key: str) -> str:
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    unset = "the encoder's own, or the gate's" if key == "retrieve.min_cosine" else "-"
    return unset if value is None else str(value)


def _licences(counts: Mapping[str, Counter[Any]]) -> Iterator[str]:
    yield "Of the documents that answers are quoted from (`licence`):\n"
    yield from _licence_table(_apart(counts["licence"]))
    yield "\nOf the queries behind the templates (`template_licence`; a template may have several):\n"
    yield from _licence_table(_apart(counts["template_licence"]))


def _licence_table(counts: Counter[str]) -> Iterator[str]:
    rows = [(name or "none named", hub_licence(name), number) for name, number in _ranked(counts)]
    return _table(("licence", "on the hub", "pairs"), rows)


def _stages(run: RunFolder) -> Iterator[str]:
    rows = []
    for figure in funnel(run):
        account = figure.account
        lost = Counter(account.rejected) + Counter({f"{k} (failed)": n for k, n in account.failed.items()})
        merged = [f"merged with another {account.num_merged:,}"] if account.num_merged else []
        why = ", ".join([*merged, *(f"{reason} {number:,}" for reason, number in _ranked(lost))])
        rows.append((figure.stage, f"{account.num_in:,}", f"{account.num_out:,}", why))
    return _table(("stage", "in", "out", "turned away"), rows)


def _columns() -> Iterator[str]:
    schema = schema_of(Pair)
    return _table(
        ("column", "type", "meaning"), [(f.name, f"`{f.type}`", PAIR_COLUMNS.get(f.name, "")) for f in schema]
    )


def _ranked(counts: Counter[Any]) -> list[tuple[Any, int]]:
    """Values and numbers, the most frequent first, equal ones by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        cells = [f"{value:,}" if isinstance(value, int) else str(value) for value in row]
        yield f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in cells)} |"
