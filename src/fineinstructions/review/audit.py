"""The audits of a run: quality by a sheet, distribution, diversity, cost; each a JSON file and a part of one page.

In: a finished run and what stands behind it. Out: files of ``RUN/audit``: ``quality.json``, ``distribution.json``,
``diversity.json``, ``efficiency.json`` and ``sheet.csv``, the same bytes from the same run, labels and settings.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fineinstructions.records import Pair, Query, Template, as_dict, from_table, schema_of
from fineinstructions.review.distribution import Tally, as_plain, comparisons, proposed_target
from fineinstructions.review.diversity import growth, place_figures, wording_figures
from fineinstructions.review.efficiency import efficiency
from fineinstructions.review.labels import AUDIT_DIR, add_labels, read_labels
from fineinstructions.review.rows import Rows
from fineinstructions.review.samples import draw_pairs, parts
from fineinstructions.review.sheet import (
    SHEET_FILE,
    Audited,
    Rate,
    difference_interval,
    direct_rows,
    drawn,
    of_run,
    rates,
    read_sheet,
    sheet_text,
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


@dataclass(frozen=True)
class Asked:
    """What an audit is to look at."""

    count: int = AUDIT_PAIRS
    seed: int = AUDIT_SEED
    direct: Sequence[tuple[str, str, str]] = ()
    """Pairs that were prompted for directly: instruction, answer, document."""
    sheets: Sequence[Path] = ()
    """Filled sheets."""
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
        write_text(run.root / AUDIT_DIR / f"{name}.json", text.encode("utf-8", "replace").decode() + "\n")
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
    """The sheet, and what labels say so far."""
    sample: list[Audited] = []
    for pair in draw_pairs(run.root, asked.count, asked.seed):
        place = rows.find("pair_id", pair.pair_id) or 0
        sample.append(of_run(pair, lookup.document(pair.document_id, (place + 0.5) / len(rows))))
    direct = drawn(direct_rows(asked.direct), asked.count, asked.seed)
    known = {row.pair_id for row in (*sample, *direct)}
    own = run.root / AUDIT_DIR / SHEET_FILE
    if own.exists():  # marks made in place come first: the sheet is written anew below
        in_place = read_sheet(own, lambda _: True)
        before = read_labels(run.root)
        add_labels(run.root, [label for label in in_place if label.pair_id not in before])
    for path in asked.sheets:
        add_labels(run.root, read_sheet(path, known.__contains__))
    labels = read_labels(run.root)
    write_text(run.root / AUDIT_DIR / SHEET_FILE, sheet_text([*sample, *direct], labels, asked.seed))
    arms = {"run": rates(sample, labels, "run")} | ({"direct": rates(direct, labels, "direct")} if direct else {})
    found: dict[str, Any] = {
        "seed": asked.seed,
        "num_pairs": len(sample),
        "num_direct": len(direct),
        "rates": {arm: [_rate(rate) for rate in of_arm] for arm, of_arm in arms.items()},
    }
    if direct:
        pairs = zip(arms["run"], arms["direct"], strict=True)
        found["difference"] = {a.name: difference_interval(a, b) for a, b in pairs}
    return found


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
    }
    template = lookup.template(grown.top_template) if grown.top_template else None
    diversity = {
        "growth": {**as_dict(grown), "top_template": template.template if template else grown.top_template},
        "generated": wording_figures(texts),
        "real": wording_figures([query.text for query in queries]) if queries else None,
        "places": _places(rows, lookup, seed),
    }
    return {"distribution": distribution, "diversity": diversity}


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
    cost = efficiency(run, hour_price)
    tokens = sum(stage.generated_tokens for stage in cost.stages)
    return {
        **as_dict(cost),
        "seconds_per_pair": cost.per_pair(cost.worker_seconds),
        "generated_tokens_per_pair": cost.per_pair(tokens),
        "asked_per_pair": cost.per_pair(sum(stage.num_asked for stage in cost.stages)),
        "money": cost.money,
        "money_per_pair": None if cost.money is None else cost.per_pair(cost.money),
    }


def _finite(value: Any) -> Any:
    """Plain values for JSON, which has no NaN."""
    if isinstance(value, dict):
        return {str(name): _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def pairs_at(rows: Rows, places: Sequence[int]) -> list[Pair]:
    """Pairs by their row numbers, in that order."""
    schema = schema_of(Pair)
    return list(from_table(pa.Table.from_pylist(rows.take(places, schema.names), schema=schema), Pair))
