"""The audits of a run: quality by a sheet, distribution, diversity, cost; each a JSON file and a part of one page.

In: a finished run and what stands behind it. Out: files of ``RUN/audit``: ``quality.json``, ``distribution.json``,
``diversity.json``, ``efficiency.json``, ``sheet.csv`` with a page to read beside it, ``templates.csv``, and all figures
as one page; the same bytes from the same run, labels and settings.
"""

import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fineinstructions.backends.chat import ChatModel
from fineinstructions.backends.prompt import Prompt
from fineinstructions.records import Pair, Query, Template, as_dict
from fineinstructions.review.audit_page import audit_sections, sheet_page
from fineinstructions.review.blocks import storable, to_html, to_markdown
from fineinstructions.review.diagnostics import read_diagnostics
from fineinstructions.review.distribution import Tally, as_plain, comparisons, proposed_target
from fineinstructions.review.diversity import growth, place_figures, wording_figures
from fineinstructions.review.efficiency import MODEL_AMOUNTS, efficiency
from fineinstructions.review.labels import AUDIT_DIR, PAIRS, TEMPLATES, Audited, Label, add_labels, read_labels
from fineinstructions.review.rows import Rows
from fineinstructions.review.samples import drawn_places, parts, records_at
from fineinstructions.review.sheet import (
    Rate,
    SheetRow,
    difference_interval,
    direct_rows,
    drawn,
    in_sheet_order,
    of_run,
    of_template,
    rates,
    read_sheet,
    sheet_rows,
    sheet_text,
    told_alike,
)
from fineinstructions.review.sheet_judge import (
    SheetVerdict,
    add_verdict,
    judge_sheet,
    labels_of,
    num_unparsed,
    read_verdicts,
)
from fineinstructions.review.viewer.lookup import Lookup
from fineinstructions.runs import RunFolder
from fineinstructions.runs.durable import write_text
from fineinstructions.runs.verify import DocumentReader

MAX_TEXTS = 50_000
"""Pairs, and queries, whose wording is looked at; a seeded sample of more. Ours."""
MAX_PLACED = 2_000
"""Pairs whose place in the document is looked up. Ours."""
AUDIT_PAIRS, AUDIT_SEED = 100, 0
SHEET_PAGE = "sheet.html"


@dataclass(frozen=True)
class SheetJudge:
    """A language model as a judge of the sheet."""

    model: ChatModel
    name: str
    """What reports call it."""
    prompts: Mapping[str, Prompt]
    """What it is asked with, about a ``pair`` and about a ``template``."""


@dataclass(frozen=True)
class Asked:
    """What an audit is to look at."""

    count: int = AUDIT_PAIRS
    seed: int = AUDIT_SEED
    direct: Sequence[tuple[str, str, str]] = ()
    """Pairs that were prompted for directly: instruction, answer, document."""
    sheets: Sequence[Path] = ()
    """Filled sheets."""
    judge: SheetJudge | None = None
    """A language model that is to fill in the sheet."""
    hour_price: float | None = None


def audit(run: RunFolder, read_unit: DocumentReader, asked: Asked, target: Sequence[float]) -> dict[str, Any]:
    """Make all audits of a run and write them.

    Args:
        run: A finished run.
        read_unit: Gives the documents of a unit.
        asked: What to look at.
        target: ``sample.target`` of the run.

    Returns:
        Everything that was found, by the name of its file.

    Raises:
        ConfigError: If the run has no pairs yet, or a filled sheet is none.
    """
    rows = Rows(parts(run.root, "pairs"))
    lookup = Lookup(run, read_unit)
    (run.root / AUDIT_DIR).mkdir(exist_ok=True)
    found = {
        "quality": _quality(run, rows, lookup, asked),
        **_wording(run, rows, lookup, asked.seed, target),
        "efficiency": _efficiency(run, asked.hour_price),
    }
    for name, figures in found.items():
        text = json.dumps(_finite(figures), ensure_ascii=False, indent=1)
        write_text(run.root / AUDIT_DIR / f"{name}.json", storable(text) + "\n")
    sections = audit_sections(read_audit(run.root))
    write_text(run.root / AUDIT_DIR / "audit.md", storable(to_markdown("Audit of a run", sections)))
    write_text(run.root / AUDIT_DIR / "index.html", storable(to_html("Audit of a run", sections)))
    return found


def read_audit(run_dir: Path) -> dict[str, Any]:
    """What audits of a run have found, by name; what has not been made is missing."""
    found = {}
    for name in ("quality", "distribution", "diversity", "efficiency"):
        path = run_dir / AUDIT_DIR / f"{name}.json"
        try:
            found[name] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
    return found


def _quality(run: RunFolder, rows: Rows, lookup: Lookup, asked: Asked) -> dict[str, Any]:
    """The sheets, and what people and judges have said of them so far."""
    sample: list[SheetRow] = []
    places = drawn_places(rows, "pair_id", asked.count, asked.seed)
    for place, pair in zip(places, records_at(rows, places, Pair), strict=True):
        document = lookup.document(pair.document_id, (place + 0.5) / len(rows))
        sample.append(of_run(pair, document, *_wording_behind(pair, lookup)))
    direct = drawn(direct_rows(asked.direct), asked.count, asked.seed)
    templates = _templates(run, lookup, asked)
    sheets = {PAIRS.name: told_alike([*sample, *direct]), TEMPLATES.name: templates}
    _take_sheets(run.root, {name: {row.record_id for row in sheet} for name, sheet in sheets.items()}, asked.sheets)
    write_text(run.root / AUDIT_DIR / SHEET_PAGE, storable(sheet_page(in_sheet_order(sheets[PAIRS.name], asked.seed))))
    found = {
        "seed": asked.seed,
        "num_pairs": len(sample),
        "num_direct": len(direct),
        **_judged(run.root, sheets[PAIRS.name], asked),
    }
    if templates:
        found["templates"] = {"num_templates": len(templates), **_judged(run.root, templates, asked, TEMPLATES)}
        found["num_failed"] += found["templates"]["num_failed"]
    return found


def _templates(run: RunFolder, lookup: Lookup, asked: Asked) -> list[SheetRow]:
    """A seeded sample of all templates of the run, whether or not a pair came of them."""
    if run.published("templates") is None:
        return []
    rows = Rows(parts(run.root, "templates"))
    drawn_ones = records_at(rows, drawn_places(rows, "template_id", asked.count, asked.seed), Template)
    return [of_template(template, _first_query(lookup, template)) for template in drawn_ones]


def _judged(root: Path, sheet: Sequence[SheetRow], asked: Asked, of: Audited = PAIRS) -> dict[str, Any]:
    """A sheet, written with what is said of it so far, and what that comes to."""
    num_failed = _ask_judge(root, sheet, asked.judge, of) if asked.judge else 0
    labels, verdicts = read_labels(root, of), read_verdicts(root, of)
    judge = asked.judge.name if asked.judge else next(reversed(verdicts), "")
    marks = labels_of(verdicts.get(judge, {}))
    write_text(root / AUDIT_DIR / of.sheet_file, sheet_text(sheet, labels, asked.seed, judge, marks, of))
    judges = {
        name: {**_rates(sheet, labels_of(said), of), "num_unparsed": num_unparsed(said, sheet)}
        | _agreement(labels, labels_of(said), sheet)
        for name, said in verdicts.items()
        if any(row.record_id in said for row in sheet)
    }
    return {**_rates(sheet, labels, of), "judges": judges, "num_failed": num_failed}


def _wording_behind(pair: Pair, lookup: Lookup) -> tuple[str, str]:
    """The words of a pair's template and of the first query behind it; empty where the run does not have them."""
    template = lookup.template(pair.template_id)
    return (template.template, _first_query(lookup, template)) if template else ("", "")


def _first_query(lookup: Lookup, template: Template) -> str:
    queries = lookup.queries(template.query_ids)
    return queries[0].text if queries else ""


def _take_sheets(root: Path, known: Mapping[str, Collection[str]], sheets: Sequence[Path]) -> None:
    """Add the labels of filled sheets; those made in the audit's own, which are written anew, come first."""
    for of in (PAIRS, TEMPLATES):
        own = root / AUDIT_DIR / of.sheet_file
        if own.exists():
            before = read_labels(root, of)
            made = [label for label in read_sheet(own, lambda _: True) if label.record_id not in before]
            add_labels(root, made, of)
    for path in sheets:
        of, _ = sheet_rows(path)
        add_labels(root, read_sheet(path, known[of.name].__contains__), of)


def _ask_judge(root: Path, sheet: Sequence[SheetRow], judge: SheetJudge, of: Audited) -> int:
    """Have a judge look at the rows that it has not seen; gives how many an engine failed on."""
    seen, prompt = read_verdicts(root, of).get(judge.name, {}), judge.prompts[of.name]
    new = [row for row in sheet if row.record_id not in seen or seen[row.record_id].prompt != prompt.digest]
    num_failed = 0
    for outcome in judge_sheet(new, judge.model, judge.name, prompt, of):
        if isinstance(outcome, SheetVerdict):
            add_verdict(root, outcome, of)
        else:
            num_failed += 1
    return num_failed


def _rates(sheet: Sequence[SheetRow], labels: Mapping[str, Label], of: Audited) -> dict[str, Any]:
    """Error rates of all arms by the labels of somebody, and how they differ."""
    arms = {arm: rates(sheet, labels, arm, of) for arm in ("run", "direct") if arm == "run" or _has(sheet, arm)}
    found: dict[str, Any] = {"rates": {arm: [_rate(rate) for rate in of_arm] for arm, of_arm in arms.items()}}
    if "direct" in arms:
        pairs = zip(arms["run"], arms["direct"], strict=True)
        found["difference"] = {a.name: difference_interval(a, b) for a, b in pairs}
    return found


def _has(sheet: Sequence[SheetRow], arm: str) -> bool:
    return any(row.arm == arm for row in sheet)


def _agreement(labels: Mapping[str, Label], judged: Mapping[str, Label], sheet: Sequence[SheetRow]) -> dict[str, int]:
    """On how many rows of both a judge and people say the same: something is wrong, or nothing is."""
    both = [row.record_id for row in sheet if row.record_id in labels and row.record_id in judged]
    same = sum(bool(labels[record_id].faults) == bool(judged[record_id].faults) for record_id in both)
    return {"num_both": len(both), "num_agreed": same}


def _rate(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {**as_dict(rate), "share": rate.share, "low": low, "high": high}


def _wording(run: RunFolder, rows: Rows, lookup: Lookup, seed: int, target: Sequence[float]) -> dict[str, Any]:
    """Distribution and diversity, which look at the same texts."""
    places = np.arange(len(rows))
    if len(places) > MAX_TEXTS:
        places = np.sort(np.random.default_rng(seed).choice(places, MAX_TEXTS, replace=False))
    table = rows.take(places, ["instruction", "template_id"])
    texts = [row["instruction"] for row in table]
    queries = _real_queries(run, seed)
    generated, real = Tally.empty(), Tally.empty()
    for text in texts:
        generated.add_text(text)
    for query in queries:
        real.add_text(query.text)
        real.sources[query.source] += 1
    _add_templates(run, rows, generated, real)
    grown = growth(rows)
    distribution = {
        "num_pairs": len(texts),
        "num_queries": len(queries),
        "comparisons": [as_plain(c) for c in comparisons(generated, real, seed)],
        "target_now": [round(share / sum(target), 4) for share in target],
        "target_proposed": proposed_target(target, generated.slots, real.slots),
        "finds": _finds(run, real.slots, len(target)),
    }
    template = lookup.template(grown.top_template) if grown.top_template else None
    diversity = {
        "growth": {**as_dict(grown), "top_template": template.template if template else grown.top_template},
        "generated": wording_figures(texts),
        "real": wording_figures([query.text for query in queries]) if queries else None,
        "places": _places(rows, lookup, seed),
    }
    return {"distribution": distribution, "diversity": diversity}


def _finds(run: RunFolder, real: Counter[int], num_counts: int) -> list[dict[str, int]] | None:
    """By slots: real queries, templates that documents found, and how many of these were chosen; ``None`` where the run
    has not told.
    """
    slots = (read_diagnostics(run) or {}).get("slots", [])
    if len(slots) != num_counts or any("num_found" not in row for row in slots):
        return None
    queries = [0] * num_counts
    for number, count in real.items():
        queries[min(number, num_counts - 1)] += count
    return [
        {"real": count, "found": row["num_found"], "chosen": row["num_sampled"]}
        for count, row in zip(queries, slots, strict=True)
    ]


def _real_queries(run: RunFolder, seed: int) -> list[Query]:
    """A sample of the run's queries; none where its templates came from a bank."""
    if not any(phase.name == "queries" for phase in run.phases) or run.planned("queries") is None:
        return []
    queries = list(_sampled(run, seed))
    return queries[:MAX_TEXTS]


def _sampled(run: RunFolder, seed: int) -> Iterator[Query]:
    """Every query, or every so many-th where there are many; which one begins depends on the seed."""
    number = 0
    for spec in run.planned("queries") or ():
        number += sum(t.num_rows for t in run.unit_groups("queries", spec, "query", ["query_id"]))
    step = max(1, math.ceil(number / MAX_TEXTS))
    for place, query in enumerate(run.records("queries", Query)):
        if place % step == seed % step:
            yield query


def _add_templates(run: RunFolder, rows: Rows, generated: Tally, real: Tally) -> None:
    """Slots and sources: of pairs by their template, of queries by the template that they became."""
    codes = rows.codes("template_id")
    used = dict(zip(codes.names, np.bincount(codes.numbers, minlength=len(codes.names)).tolist(), strict=True))
    for template in run.published_records("templates", Template):
        number = used.get(template.template_id, 0)
        generated.slots[template.num_slots] += number
        real.slots[template.num_slots] += len(template.query_ids)
        for source in template.source.split("; "):
            if number:
                generated.sources[source] += number


def _places(rows: Rows, lookup: Lookup, seed: int) -> dict[str, Any]:
    """Where in their documents the answers of a sample stand."""
    chosen = np.arange(len(rows))
    if len(chosen) > MAX_PLACED:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MAX_PLACED, replace=False))
    middles, chunks = [], []
    for place, row in zip(chosen.tolist(), rows.take(chosen, ["document_id", "excerpts", "chunk"]), strict=True):
        if not row["excerpts"]:
            continue
        document = lookup.document(row["document_id"], (place + 0.5) / len(rows))
        if document and document.text:
            first = row["excerpts"][0]
            middles.append((first["document_start"] + first["document_end"]) / 2 / len(document.text))
            chunks.append(row["chunk"])
    return place_figures(np.array(middles, np.float64), np.array(chunks, np.int64))


def _efficiency(run: RunFolder, hour_price: float | None) -> dict[str, Any]:
    """What the run cost, and each amount for a kept pair."""
    cost = efficiency(run, hour_price)
    asked = {name: sum(getattr(of_stage, name) for of_stage in cost.asked) for name in MODEL_AMOUNTS}
    totals = {"worker_seconds": cost.worker_seconds, **asked}
    money = {"worker_money": cost.worker_money, "model_money": cost.model_money}
    totals |= {name: amount for name, amount in money.items() if amount is not None}
    return {**as_dict(cost), **money, "per_pair": {name: cost.per_pair(amount) for name, amount in totals.items()}}


def _finite(value: Any) -> Any:
    """Plain values for JSON, which has no NaN."""
    if isinstance(value, dict):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
