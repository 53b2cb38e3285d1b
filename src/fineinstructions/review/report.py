"""The report of a run: one page that needs nothing else, and its Markdown.

In: a finished run, and its audits where they have been made. Out: ``RUN/report/index.html`` and ``report.md``, the same
bytes from the same run. The decision to question: the examples are as many bad ones as good ones, because the worst
kept and the best rejected pairs say most about a threshold.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.errors import ConfigError, DataError
from fineinstructions.plots import Curves, Mark, Series, bars, histogram
from fineinstructions.records import GLOBAL_CHUNK, Pair
from fineinstructions.review.audit import read_audit
from fineinstructions.review.audit_page import audit_sections
from fineinstructions.review.blocks import (
    Block,
    Example,
    Grid,
    Heads,
    Plots,
    Section,
    Words,
    storable,
    to_html,
    to_markdown,
)
from fineinstructions.review.calibration_page import calibration_sections
from fineinstructions.review.diagnostics import read_diagnostics
from fineinstructions.review.rows import Rows
from fineinstructions.review.samples import draw_pairs, parts, records_at
from fineinstructions.review.viewer.marking import Piece, answer_pieces, shown
from fineinstructions.runs import RunFolder, funnel
from fineinstructions.runs.durable import write_text

REPORT_DIR = "report"
CURVES_DIR = "curves"
EXPERIMENT_CURVES = ("loss.json", "heldout.json")
"""Curves in the folder of an experiment."""
NUM_SAMPLED, NUM_WORST, NUM_BEST = 20, 10, 10
SEED = 0
_MAX_ANSWER_CHARS = 3000
_MAX_LISTED = 15


def write_report(run: RunFolder, experiment: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        run: A finished run.
        experiment: Folder of an experiment whose curves are to be in it.

    Returns:
        The page.

    Raises:
        ConfigError: If the run has no pairs yet, or the experiment no curves.
        DataError: If a file of curves or of a judge's calibration is none.
    """
    sections = report_sections(run, experiment)
    title = "Report of a run"
    folder = run.root / REPORT_DIR
    folder.mkdir(exist_ok=True)
    write_text(folder / "report.md", storable(to_markdown(title, sections)))
    write_text(folder / "index.html", storable(to_html(title, sections)))
    return folder / "index.html"


def report_sections(run: RunFolder, experiment: Path | None = None) -> list[Section]:
    """Everything that the report tells, in order; arguments as `write_report`."""
    curves = [*sorted((run.root / CURVES_DIR).glob("*.json")), *(_curves_of(experiment) if experiment else [])]
    pairs, rejected = Rows(parts(run.root, "pairs")), Rows(parts(run.root, "rejected"))
    return [
        Section("In short", list(_short(run, pairs, rejected))),
        Section("From stage to stage", list(_funnel(run))),
        Section("Scores and quotations", list(_scores(run, pairs, rejected))),
        Section("Where pairs come from", list(_origins(run, pairs))),
        *calibration_sections(run.root),
        *audit_sections(read_audit(run.root)),
        *_curves(curves),
        Section("Pairs drawn at random", [_example(pair) for pair in draw_pairs(run.root, NUM_SAMPLED, SEED)]),
        Section("The worst that were kept", _worst(pairs)),
        Section("The best that were turned away", _best_rejected(rejected)),
    ]


def _short(run: RunFolder, pairs: Rows, rejected: Rows) -> Iterator[Block]:
    figures = funnel(run)
    entered = {f.stage: f.account.num_in for f in figures}
    told: list[tuple[str, str]] = [
        (f"{entered[stage]:,}", stage) for stage in ("queries", "documents") if stage in entered
    ]
    templates = run.published("templates")
    told += [(f"{templates.counts['rows']:,}", "templates")] if templates else []
    yield Heads([*told, (f"{len(pairs):,}", "pairs kept"), (f"{len(rejected):,}", "records turned away")])
    names = [
        f"{stage}: {(run.config.get(stage) or {}).get('model')}" for stage in ("genericize", "instantiate", "judge")
    ]
    yield Words(f"Made with the models {'; '.join(names)}. Settings: recipe.resolved.yaml; licences: README.md.", True)


def _funnel(run: RunFolder) -> Iterator[Block]:
    figures = funnel(run)
    labels = [figure.stage for figure in figures]
    plot = bars(labels, {"out": [float(f.account.num_out) for f in figures]}, title="Records that leave each stage")
    yield Plots([("Records that leave each stage", plot)])
    rows = []
    for figure in figures:
        account = figure.account
        lost = {**account.rejected, **{f"{name} (failed)": n for name, n in account.failed.items()}}
        if account.num_merged:
            lost["merged with another"] = account.num_merged
        why = ", ".join(f"{name} {n:,}" for name, n in sorted(lost.items(), key=lambda item: (-item[1], item[0])))
        rows.append((figure.stage, account.num_in, account.num_out, why))
    yield Grid(("stage", "in", "out", "turned away"), rows)


def _scores(run: RunFolder, pairs: Rows, rejected: Rows) -> Iterator[Block]:
    scores, ratios = pairs.numbers("judge_score"), pairs.numbers("excerpt_ratio")
    low = _low_values(rejected)
    judge, excerpts = run.config.get("judge") or {}, run.config.get("excerpts") or {}
    all_scores = np.concatenate([scores, low["low_score"]])
    all_ratios = np.concatenate([ratios, low["low_excerpt_ratio"]])
    cosines = pairs.numbers("cosine")
    slots = _slot_counts(run, pairs)
    yield Plots(
        [
            _histogram("Judge's score", all_scores, np.arange(0.5, 6), float(judge.get("min_score", 4)) - 0.5),
            _histogram("Excerpt ratio", all_ratios, np.linspace(0, 1, 41), float(excerpts.get("min_ratio", 0.8))),
            _histogram("Cosine of template and document", cosines, _edges(cosines)),
            _histogram("Slots of the template", slots, np.arange(-0.5, max(slots, default=1) + 1)),
        ]
    )
    yield Words(
        "Scores and ratios include what was turned away for being too low; the dashed line is the threshold.", True
    )
    counts = [(n, int((scores == n).sum()), int((low["low_score"] == n).sum())) for n in range(5, 0, -1)]
    yield Grid(("score", "kept", "turned away for it"), counts)
    places = np.linspace(0, 1, 11)
    bins = np.histogram(all_ratios, places)[0].tolist()
    labels = [f"{low:.1f} to {high:.1f}" for low, high in pairwise(places)]
    yield Grid(("excerpt ratio", "drafts"), [row for row in zip(labels, bins, strict=True) if row[1]])


def _low_values(rejected: Rows) -> dict[str, NDArray[np.float64]]:
    reasons, values = rejected.codes("reason"), rejected.numbers("value")
    stages = rejected.codes("stage")
    wanted = {"low_score": "select", "low_excerpt_ratio": "excerpts"}
    return {
        reason: values[(reasons.numbers == reasons.of(reason)) & (stages.numbers == stages.of(stage))]
        for reason, stage in wanted.items()
    }


def _slot_counts(run: RunFolder, pairs: Rows) -> NDArray[np.float64]:
    """Slots of every pair's template."""
    codes = pairs.codes("template_id")
    number = dict.fromkeys(codes.names, 0)
    for file in parts(run.root, "templates"):
        for table in Rows([file]).batches(["template_id", "num_slots"]):
            found = zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True)
            number |= {template_id: slots for template_id, slots in found if template_id in number}
    return np.array([number[name] for name in codes.names] or [0], np.float64)[codes.numbers]


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low = float(np.floor(values.min() * 20) / 20) if len(values) else 0.0
    return np.linspace(min(low, 0.95), 1, 41)


def _histogram(
    title: str, values: NDArray[np.float64], edges: NDArray[np.float64], mark: float | None = None
) -> tuple[str, str]:
    counts = {"pairs": np.histogram(values, edges)[0].tolist()}
    marks = [Mark(mark, "kept from here")] if mark is not None else []
    return title, histogram(edges.tolist(), counts, title=title, x_label=title.lower(), y_label="pairs", marks=marks)


def _origins(run: RunFolder, pairs: Rows) -> Iterator[Block]:
    sources = list(pairs.codes("source").counts().items())[:_MAX_LISTED]
    chunks = pairs.numbers("chunk")
    by_chunk = [(int(n), int((chunks == n).sum())) for n in np.unique(chunks)]
    named = [("whole document" if n == GLOBAL_CHUNK else f"chunk {n}", count) for n, count in by_chunk]
    plots = [("Pairs by source of the document", _counted("Pairs by source", [(n or "none", c) for n, c in sources]))]
    plots += [("Pairs by the vector that found the template", _counted("Pairs by vector", named))]
    yield Plots(plots)
    templates = list(pairs.codes("template_id").counts().items())[:_MAX_LISTED]
    texts = _template_texts(run, {template_id for template_id, _ in templates})
    rows = [(texts.get(i, i), count, f"{count / len(pairs):.2%}") for i, count in templates]
    yield Grid(("most frequent templates", "pairs", "share"), rows)
    found = read_diagnostics(run)
    if found:
        yield Words(
            f"Of {found['num_documents']:,} documents searched, {found['without_candidate_share']:.1%} found none; "
            f"the others found {found['candidates_mean']:.1f} on average. {found['num_never_retrieved']:,} of "
            f"{found['num_templates']:,} templates were never found, {found['num_never_sampled']:,} never chosen."
        )


def _counted(title: str, rows: Sequence[tuple[str, int]]) -> str:
    return bars([name for name, _ in rows], {"pairs": [float(n) for _, n in rows]}, title=title)


def _template_texts(run: RunFolder, wanted: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for table in Rows(parts(run.root, "templates")).batches(["template_id", "template"]):
        rows = zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True)
        found |= {template_id: text for template_id, text in rows if template_id in wanted}
    return found


def _curves_of(experiment: Path) -> list[Path]:
    found = [path for name in EXPERIMENT_CURVES if (path := experiment / name).is_file()]
    if not found:
        raise ConfigError(
            f"{experiment}: no curves ({' or '.join(EXPERIMENT_CURVES)}); name the folder of an experiment, "
            "and run an older one again to have them written"
        )
    return found


def _curves(files: Sequence[Path]) -> Iterator[Section]:
    """Plots of experiments, from files of their curves."""
    drawn: list[tuple[str, str]] = []
    for path in files:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            series = [Series(str(s["name"]), s["x"], s["y"]) for s in found["series"]]
            title, x_label, y_label = (str(found.get(name, "")) for name in ("title", "x_label", "y_label"))
            drawn.append((title, Curves(title, x_label, y_label, series).drawn()))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: no curves ({error}); see docs/report.md, or take the file away") from None
    if drawn:
        yield Section("Experiment", [Plots(drawn)])


def _example(pair: Pair) -> Example:
    return Example(pair.instruction, _cut(answer_pieces(pair)), _facts(pair))


def _facts(pair: Pair) -> str:
    expected = "" if pair.judge_expected_score is None else f", expected {pair.judge_expected_score:.2f}"
    where = pair.title or pair.document_id
    return (
        f"score {pair.judge_score}{expected} · quoted {pair.excerpt_ratio:.0%} · cosine {pair.cosine:.3f} · "
        f"{where} · {pair.source or 'no source'} · {pair.pair_id}"
    )


def _cut(pieces: Sequence[Piece]) -> list[Piece]:
    """The beginning of an answer."""
    kept: list[Piece] = []
    left = _MAX_ANSWER_CHARS
    for piece in pieces:
        kept.append(Piece(piece.text[:left], piece.spans))
        left -= len(piece.text)
        if left <= 0:
            return [*kept, Piece(" ...")]
    return kept


def _worst(pairs: Rows) -> list[Block]:
    """The kept pairs with the lowest scores, then expected scores, ratios and cosines."""
    columns = ("cosine", "excerpt_ratio", "judge_expected_score", "judge_score")
    order = np.lexsort([np.nan_to_num(pairs.numbers(name), nan=5.0) for name in columns])
    return [_example(pair) for pair in records_at(pairs, order[:NUM_WORST].tolist(), Pair)]


def _best_rejected(rejected: Rows) -> list[Block]:
    """Judged pairs with the highest of the low scores, then drafts with the highest of the low ratios."""
    stages, reasons, values = rejected.codes("stage"), rejected.codes("reason"), rejected.numbers("value")
    chosen: list[int] = []
    for stage, reason in (("select", "low_score"), ("select", "low_expected_score"), ("excerpts", "low_excerpt_ratio")):
        places = np.flatnonzero((stages.numbers == stages.of(stage)) & (reasons.numbers == reasons.of(reason)))
        chosen += places[np.argsort(-values[places], kind="stable")].tolist()
    rows = rejected.take(chosen[:NUM_BEST])
    found: list[Block] = [_turned_away(row) for row in rows]
    return found or [Words("Nothing was turned away for a low score or for quoting too little.")]


def _turned_away(row: dict[str, Any]) -> Example:
    record = json.loads(row["record"])
    value = "" if row["value"] is None else f" {row['value']:.3g}"
    facts = f"{row['stage']}: {row['reason']}{value} · {row['record_id']}"
    answer = [Piece(shown(str(record.get("answer", ""))[:_MAX_ANSWER_CHARS]))]
    return Example(str(record.get("instruction", row["record_id"])), answer, facts)
