"""What a run of the embedded tier is made of: pairs by source and opening, templates, documents.

    python benchmarks/bench_pairs.py RUN --documents DOCUMENTS.parquet --out benchmarks/results/NAME.md

Where an answer stands decides its source: a section under a heading, the sentence that defines the page's subject, or
any other sentence ("prose"). It is found by reading every document once more with the rules that made the pairs.
Pearson is of the coverage chunk that found a template and the middle of its first excerpt, as a share of the document.
"""

import argparse
import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fineinstructions.embedded.relations.gate import evidence
from fineinstructions.embedded.relations.headings import heading_evidence
from fineinstructions.embedded.relations.questions import wanted
from fineinstructions.embedded.relations.reading import Reading
from fineinstructions.embedded.relations.subject import subject_of
from fineinstructions.records import Document
from fineinstructions.statistics import pearson

SOURCES = ("heading", "definition", "prose")
OPENINGS = ("what", "how", "can", "where", "when", "who", "which", "in", "define", "why")


def rows(folder: Path, columns: list[str]) -> list[dict[str, Any]]:
    """Some columns of all rows below a folder of a run."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.parquet")):
        found += pq.read_table(path, columns=columns).to_pylist()
    return found


def sources_of(document: Document, pairs: list[tuple[str, int]]) -> list[str]:
    """Source of every pair of a document, given as the template and where its answer starts."""
    reading = Reading(document.text, document.title)
    headed = {(item.key, item.start) for item in heading_evidence(reading, subject_of(reading))}
    first = reading.first_sentence
    found = evidence(document)
    sources = []
    for template, start in pairs:
        asked = wanted(template)
        key = asked.key if asked else ""
        known = any(item.start == start for item in found.get(key, ()))
        if not known:
            sources.append("unknown")
        elif (key, start) in headed:
            sources.append("heading")
        else:
            sources.append("definition" if first and first.start == start else "prose")
    return sources


def table(title: str, counts: Counter[str], names: list[str], whole: int) -> str:
    """A Markdown table of counts and shares."""
    lines = [f"| {title} | pairs | share |", "| --- | --- | --- |"]
    lines += [f"| {name} | {counts[name]:,} | {counts[name] / max(1, whole):.1%} |" for name in names if counts[name]]
    return "\n".join(lines)


def places(pairs: list[dict[str, Any]], texts: dict[str, dict[str, Any]]) -> str:
    """A Markdown table: how the chunk that found a template goes with where its answer stands, by domain."""
    found: dict[str, list[tuple[int, float]]] = {}
    for pair in (pair for pair in pairs if pair["chunk"] >= 0):
        first, row = pair["excerpts"][0], texts[pair["document_id"]]
        middle = (first["document_start"] + first["document_end"]) / 2 / len(row["text"])
        for domain in ("all", row["domain"]):
            found.setdefault(domain, []).append((pair["chunk"], middle))
    lines = ["| domain | pairs found by a coverage chunk | Pearson |", "| --- | --- | --- |"]
    for domain in sorted(found, key=lambda name: (name != "all", name)):
        chunks, middles = zip(*found[domain], strict=True)
        lines.append(f"| {domain} | {len(chunks):,} | {pearson(chunks, middles):.3f} |")
    return "\n".join(lines)


def report(run: Path, documents: Path) -> str:
    """Everything about a run, as Markdown."""
    pairs = rows(run / "pairs", ["document_id", "template_id", "chunk", "instruction", "excerpts"])
    templates = {r["template_id"]: r["template"] for r in rows(run / "templates", ["template_id", "template"])}
    texts = {r["id"]: r for r in pq.read_table(documents, columns=["id", "domain", "title", "text"]).to_pylist()}
    by_document: dict[str, list[tuple[str, int]]] = {}
    for pair in pairs:
        start = min(part["document_start"] for part in pair["excerpts"])
        by_document.setdefault(pair["document_id"], []).append((templates[pair["template_id"]], start))
    sources: Counter[str] = Counter()
    domains: Counter[str] = Counter()
    for name, made in by_document.items():
        row = texts[name]
        sources.update(sources_of(Document(name, row["text"], row["title"] or ""), made))
        domains[row["domain"]] += len(made)
    used = Counter(pair["template_id"] for pair in pairs)
    openings = Counter(pair["instruction"].split()[0].casefold() for pair in pairs)
    most = max(used.values(), default=0)
    return "\n\n".join(
        [
            f"# Pairs of the embedded tier, {datetime.date.today().isoformat()}",
            f"`bench_pairs.py` over a run of {len(texts):,} documents: {len(pairs):,} pairs of {len(used):,} "
            f"templates out of {len(templates):,}, from {len(by_document):,} documents "
            f"({len(by_document) / len(texts):.1%}); the most frequent template has {most:,} "
            f"({most / max(1, len(pairs)):.1%}).",
            table("source of the answer", sources, [*SOURCES, "unknown"], len(pairs)),
            table("first word", openings, list(OPENINGS), len(pairs)),
            table("domain", domains, sorted(domains), len(pairs)),
            places(pairs, texts),
        ]
    )


def main() -> None:
    """Write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    text = report(arguments.run, arguments.documents) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
