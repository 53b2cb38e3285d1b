"""The data card of an export: what each arm is, its tokens, what made it, and under which licences its rows stand.

In: figures, and tallies of the rows as they were written. Out: a Markdown file whose front matter the Hugging Face hub
reads, with one configuration per arm; the same bytes from the same corpus: no date, no host, no path of this machine.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from fineinstructions import __version__
from fineinstructions.cards import (
    MadeWith,
    Tally,
    add_licences,
    licence_fields,
    licence_remedy,
    licence_table,
    section,
    size_category,
    tally_rows,
)
from fineinstructions.corpus.export import WITH_PAIRS
from fineinstructions.markdown import code, table

CARD_FILE = "README.md"
ENDINGS = (".parquet", ".jsonl", ".gz", ".zst")
"""Endings that tell a format; other points belong to the name."""
COLUMNS: Mapping[str, Sequence[tuple[str, str]]] = {
    "text": [("text", "the training text")],
    "messages": [("messages", "instruction and answer as a dialogue of user and assistant")],
    "prompt_completion": [("prompt", "the training text before the answer"), ("completion", "the answer")],
    "alpaca": [("instruction", "the instruction"), ("input", "always empty"), ("output", "the answer")],
    "sharegpt": [("conversations", "instruction and answer as a dialogue of human and gpt")],
}
"""Columns of every view and what they hold."""


class RowTallies:
    """What the rows of a corpus have, counted while they are written."""

    def __init__(self) -> None:
        self.licences, self.template_licences, self.sources, self.models = Tally(), Tally(), Tally(), Tally()
        self.on_hub: set[str] = set()

    def counted(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The same tables."""
        for rows in tables:
            add_licences(self.licences, self.on_hub, rows.column("licence"))
            is_made_of_pairs = pc.or_(
                pc.is_valid(rows.column("instruction")), pc.not_equal(rows.column("template_licence"), "")
            )
            queried = rows.column("template_licence").filter(is_made_of_pairs)
            add_licences(self.template_licences, self.on_hub, queried)
            for name, tally in (("source", self.sources), ("models", self.models)):
                for found in pc.value_counts(rows.column(name)).to_pylist():
                    tally.add(found["values"], found["counts"])
            yield rows


def card_text(facts: Mapping[str, Any], rows: RowTallies, made_with: Sequence[MadeWith]) -> str:
    """The card.

    Args:
        facts: What stands in ``corpus.json``.
        rows: Tallies of all rows of all arms.
        made_with: The models and banks of the run.
    """
    front = yaml.safe_dump(_front_matter(facts, rows), sort_keys=False, allow_unicode=True)
    sections = [
        f"---\n{front}---\n",
        "# Training corpora of one run\n",
        f"Made by fineinstructions {__version__} with the method of *FineInstructions* "
        "([arXiv:2601.22146](https://arxiv.org/abs/2601.22146)). Every arm is a corpus made from one run; "
        f"{_equal(facts)}\n",
        *section("How to load", _loading(facts)),
        *section("Tokens", _tokens(facts)),
        *section("What was left out", _left_out(facts)),
        *section("What made the pairs", _making(rows, made_with)),
        *section("Licences", _licences(rows)),
        *section("Sources of the documents", table(("source", "rows"), tally_rows(rows.sources))),
        *section("Columns", _columns(facts)),
    ]
    return "\n".join(sections)


def _equal(facts: Mapping[str, Any]) -> str:
    if len(facts["arms"]) == 1:
        return "this export has one arm."
    if facts["config"]["documents"] == "same":
        return (
            "all arms are made of the same documents, those that have pairs, with as many tokens of each as its pairs "
            "have. Texts of documents are cut to their beginnings for that."
        )
    if facts["config"]["equal_tokens"]:
        return (
            "all arms have the tokens of the smallest, but for less than one row. Each is cut by rows of its "
            "own, so arms may hold different documents."
        )
    return "arms have different numbers of tokens: *epochs* says how often each is read for the tokens of the largest."


def _front_matter(facts: Mapping[str, Any], rows: RowTallies) -> dict[str, Any]:
    written = next((name for arm in facts["arms"].values() for name in arm["files"]), "")
    ending = "".join(part for part in PurePath(written).suffixes if part in ENDINGS) or ".parquet"
    files = f"*{ending}"
    configs: list[dict[str, Any]] = [
        {"config_name": arm, "data_files": [{"split": "train", "path": f"{arm}/{files}"}]} for arm in facts["arms"]
    ]
    configs[0]["default"] = True
    return {
        **licence_fields(rows.on_hub),
        "size_categories": [size_category(sum(arm["rows"] for arm in facts["arms"].values()))],
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "pretraining", "instruction-tuning", "fineinstructions"],
        "configs": configs,
    }


def _loading(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "```python\nfrom datasets import load_dataset\n"
    for arm in facts["arms"]:
        yield f'{arm.replace("-", "_")} = load_dataset("PATH_OR_NAME", "{arm}", split="train")'
    yield "```"
    if facts["format"] == "lingua":
        yield "\n`lingua.ARM.SIZE.yaml` are recipes for Lingua; rows are shuffled, one file for every rank."
    if facts["format"] == "torchtitan":
        yield "\n`torchtitan.ARM.toml` are settings for torchtitan; rows are shuffled."


def _tokens(facts: Mapping[str, Any]) -> Iterator[str]:
    tokenizer = facts["tokenizer"]
    name = "bytes" if tokenizer["kind"] == "bytes" else f"{tokenizer['kind']}, SHA-256 {tokenizer['sha256']}"
    yield f"Counted with the tokens before and behind every text; tokenizer: {name}.\n"
    lines = [
        (
            arm,
            f["rows"],
            f["documents"],
            f["tokens"],
            f"{f['tokens'] / max(1, f['rows']):,.1f}",
            str(f["epochs"]),
            _mixture(f),
        )
        for arm, f in facts["arms"].items()
    ]
    yield from table(("arm", "rows", "documents", "tokens", "per row", "epochs", "tokens of each source"), lines)
    documents = facts["documents"]
    yield f"\nThe documents are {documents['rows']:,} with {documents['tokens']:,} tokens."
    if facts["config"]["budget"] == "document":
        has_same = facts["config"]["documents"] == "same"
        inherited = "" if has_same else " and what earlier documents left over"
        left = "of all documents" if has_same else "in the end"
        yield (
            f"Pairs of a document cost at most its own tokens{inherited} (`ledger.parquet`); "
            f"{left} {facts['deficit_tokens']:,} tokens were left."
        )
    for arm, source, share in (
        (arm, source, share) for arm, f in facts["arms"].items() for source, share in f["sources"].items()
    ):
        if "shortened_rows" in share:
            behind = f", and {share['rows_with_pairs']:,} have pairs behind them" if source == WITH_PAIRS else ""
            yield f"{arm}: {share['shortened_rows']:,} of {share['rows']:,} documents are cut{behind}."


def _mixture(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {share['tokens']:,}" for name, share in figures["sources"].items())


def _left_out(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "Every row that did not make it stands in `rejected/` with its reason.\n"
    lines = []
    for stage, account in facts["stages"].items():
        why = ", ".join(f"{reason} {n:,}" for reason, n in {**account["rejected"], **account["failed"]}.items())
        lines.append((stage, account["in"], account["out"], why))
    yield from table(("stage", "in", "out", "left out"), lines)
    if facts["config"]["sift"]["benchmarks"]:
        yield (
            "\nDocuments that share wording with a benchmark were left out with all that was made of them, and so were "
            "pairs whose own wording does (`benchmark_hits.parquet`).\n"
        )
        hits = [(h["benchmark"].rpartition("/")[2], h["part"], h["kind"], h["rows"]) for h in facts["benchmark_hits"]]
        yield from table(("benchmark", "part", "kind", "rows"), hits)
        yield "\nRows that each arm lost by that:\n"
        lost = [
            (arm, source, share["benchmark_rows"])
            for arm, figures in facts["arms"].items()
            for source, share in figures["sources"].items()
        ]
        yield from table(("arm", "source", "rows"), lost)


def _making(rows: RowTallies, made_with: Sequence[MadeWith]) -> Iterator[str]:
    lines = [(m.role, m.name, m.revision or "-", m.licence) for m in made_with]
    yield from table(("stage", "model or bank", "revision", "licence"), lines)
    yield "\nAs the rows name them, with the digests of their prompts; a document names none:\n"
    yield from table(("models", "rows"), tally_rows(rows.models, lambda value: code(value or "none")))


def _licences(rows: RowTallies) -> Iterator[str]:
    yield "Of the documents (`licence`):\n"
    yield from licence_table(rows.licences, "rows")
    yield from licence_remedy(rows.licences, "documents")
    yield "\nOf the queries behind the templates of pairs (`template_licence`; a template may have several):\n"
    yield from licence_table(rows.template_licences, "rows")
    yield from licence_remedy(rows.template_licences, "queries")


def _columns(facts: Mapping[str, Any]) -> Iterator[str]:
    known = [("id", "id of the pair or document"), *COLUMNS[facts["config"]["view"]]]
    if facts["format"] != "lingua":
        known.insert(1, ("document_id", "id of the document"))
        known += [
            ("num_tokens", "tokens of the row, those around it included"),
            ("source", "source of the document"),
            ("licence", "licence of the document"),
            ("template_licence", "licences of the queries behind the template"),
        ]
    return table(("column", "meaning"), [(code(name), meaning) for name, meaning in known])
