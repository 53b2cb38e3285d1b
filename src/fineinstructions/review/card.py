"""The data card of a run, ``RUN/README.md``: what the pairs are, what made them, and under which licences they stand.

In: a run whose pairs are merged, and the models and banks of its recipe. Out: a Markdown file whose front matter the
Hugging Face hub reads, the same bytes from the same run: no date, no host, no path of this machine.

The decision a reader would question: no single licence is chosen for the whole. Every row carries those of its document
and of the queries behind its template; the front matter lists all that occur, and the tables say how often.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from fineinstructions import __version__
from fineinstructions.cards import (
    MadeWith,
    Tally,
    add_licences,
    languages_of,
    licence_fields,
    licence_remedy,
    licence_table,
    ranked,
    section,
    size_category,
    tally_rows,
)
from fineinstructions.config import digest
from fineinstructions.markdown import Markdown, code, table
from fineinstructions.records import Pair, schema_of
from fineinstructions.review.columns import PAIR_COLUMNS
from fineinstructions.review.samples import parts
from fineinstructions.runs import RunFolder, funnel
from fineinstructions.runs.durable import write_text

CARD_FILE = "README.md"
_LICENCES = ("licence", "template_licence")
_COUNTED = (*_LICENCES, "source", "models", "judge_score")


def write_card(
    run: RunFolder, made_with: Sequence[MadeWith], more_tables: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Write the data card, unless the one that is there was made from the same run.

    Args:
        run: The run; its pairs are merged.
        made_with: The models and banks of its recipe.
        more_tables: Further tables, as a name to a folder by split; a split without rows is not named, because
            `datasets` refuses it and the table with it.

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
    write_text(path, f"{_card(run, made_with, _with_rows(run, more_tables or {}))}\n{line}\n")


def _with_rows(run: RunFolder, tables: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Tables without the splits, and without the tables, that have no rows."""
    filled = {
        name: {s: f for s, f in folders.items() if any(pq.read_metadata(p).num_rows for p in parts(run.root, f))}
        for name, folders in tables.items()
    }
    return {name: folders for name, folders in filled.items() if folders}


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
        *section("How to load", _loading(more_tables)),
        *section("What made them", _making(run, made_with, found.tallies["models"])),
        *section("Licences", _licences(found)),
        *section("Sources of the documents", table(("source", "pairs"), tally_rows(found.tallies["source"]))),
        *section("Judge's scores", table(("score", "pairs"), sorted(scores.items(), reverse=True))),
        *section("From stage to stage", _stages(run)),
        *section("Columns", _columns()),
    ]
    return "\n".join(sections)


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
            found.languages.update(languages_of(batch.column("metadata")))
            for name, tally in found.tallies.items():
                if name in _LICENCES:
                    add_licences(tally, found.hub_licences, batch.column(name))
                    continue
                for counted in pc.value_counts(batch.column(name)).to_pylist():
                    tally.add(counted["values"], counted["counts"])
    return found


def _front_matter(found: _Found, number: int, more_tables: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    language = {"language": sorted(found.languages)} if found.languages else {}
    configs = [{"config_name": "pairs", "data_files": "pairs/*.parquet", "default": True}]
    configs += [{"config_name": "templates", "data_files": "templates/*.parquet"}]
    configs += [
        {"config_name": name, "data_files": [{"split": s, "path": f"{f}/*.parquet"} for s, f in folders.items()]}
        for name, folders in more_tables.items()
    ]
    return {
        **licence_fields(found.hub_licences),
        **language,
        "size_categories": [size_category(number)],
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
    yield from table(("models", "pairs"), tally_rows(models, code))
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
    yield from licence_table(found.tallies["licence"])
    yield from licence_remedy(found.tallies["licence"], "documents")
    yield "\nOf the queries behind the templates (`template_licence`; a template may have several):\n"
    yield from licence_table(found.tallies["template_licence"])
    yield from licence_remedy(found.tallies["template_licence"], "queries")


def _stages(run: RunFolder) -> Iterator[str]:
    rows = []
    for figure in funnel(run):
        account = figure.account
        lost = Counter(account.rejected) + Counter({f"{k} (failed)": n for k, n in account.failed.items()})
        merged = [f"merged with another {account.num_merged:,}"] if account.num_merged else []
        why = ", ".join([*merged, *(f"{reason} {number:,}" for reason, number in ranked(lost))])
        rows.append((figure.stage, f"{account.num_in:,}", f"{account.num_out:,}", why))
    return table(("stage", "in", "out", "turned away"), rows)


def _columns() -> Iterator[str]:
    schema = schema_of(Pair)
    return table(
        ("column", "type", "meaning"),
        [(f.name, code(str(f.type)), Markdown(PAIR_COLUMNS.get(f.name, ""))) for f in schema],
    )
