"""The viewer's pages: addresses in, pages out.

In: a run, a reader of its documents, the pairs of its audit. Out: an ASGI application. All pages are made on the server
from templates that escape whatever they are given; the script of the pages only follows links and sends labels.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fineinstructions.errors import ConfigError, FineInstructionsError
from fineinstructions.plots import Mark, histogram
from fineinstructions.records import GLOBAL_CHUNK, Pair, from_table, schema_of
from fineinstructions.review.labels import FAULTS, add_labels, checked, read_labels
from fineinstructions.review.rows import Rows
from fineinstructions.review.samples import parts
from fineinstructions.review.thresholds import Thresholds, outcome
from fineinstructions.review.viewer.catalogue import PAGE_ROWS, PairList, RejectionList
from fineinstructions.review.viewer.guard import Access, Guard
from fineinstructions.review.viewer.lookup import Lookup
from fineinstructions.review.viewer.marking import Piece, answer_pieces, pieces, shown, template_pieces
from fineinstructions.review.viewer.wanted import BadAddressError, Wanted, read_wanted
from fineinstructions.runs import RunFolder
from fineinstructions.runs.remote import place_of
from fineinstructions.runs.verify import DocumentReader

MAX_POST_BYTES = 1 << 16
_LISTED = ("pair_id", "instruction", "answer", "judge_score", "excerpt_ratio", "cosine", "source", "title")
_PREVIEW_CHARS = 280
_HERE = Path(__file__).parent


@dataclass
class Shop:
    """Everything that pages are made from."""

    run: RunFolder
    pairs: PairList
    rejections: RejectionList
    lookup: Lookup
    draw: Callable[[str, dict[str, Any]], str]
    """From the name of a page's template and values to the page."""

    @cached_property
    def now(self) -> Thresholds:
        """The thresholds of the run's own recipe; of cosines, a round number below the lowest one."""
        config, cosines = self.run.config, self.pairs.cosines
        judge, excerpts = config.get("judge") or {}, config.get("excerpts") or {}
        lowest = min(0.95, float(np.floor(cosines.min() * 20) / 20)) if len(cosines) else 0.0
        return Thresholds(int(judge.get("min_score", 4)), float(excerpts.get("min_ratio", 0.8)), lowest)

    @cached_property
    def low_scores(self) -> NDArray[np.float64]:
        """Scores that turned pairs away."""
        return self.rejections.values_of("select", "low_score")

    @cached_property
    def low_ratios(self) -> NDArray[np.float64]:
        """Excerpt ratios that turned drafts away."""
        return self.rejections.values_of("excerpts", "low_excerpt_ratio")

    @cached_property
    def histograms(self) -> dict[str, tuple[list[float], list[int]]]:
        """Edges and counts of score, ratio and cosine, with what was turned away for being too low."""
        pairs = self.pairs
        edges = (np.arange(0.5, 6), np.linspace(0, 1, 41), np.linspace(self.now.min_cosine, 1, 41))
        given: list[list[NDArray[Any]]]
        given = [[pairs.scores, self.low_scores], [pairs.ratios, self.low_ratios], [pairs.cosines]]
        counts = [
            np.sum([np.histogram(values, ends)[0] for values in columns], axis=0)
            for columns, ends in zip(given, edges, strict=True)
        ]
        named = zip(("score", "ratio", "cosine"), edges, counts, strict=True)
        return {name: (ends.tolist(), number.tolist()) for name, ends, number in named}


def open_shop(run: RunFolder, read_unit: DocumentReader, count: int, seed: int) -> Shop:
    """Make ready what pages are made from; columns are read by the first page that needs them.

    Args:
        run: A finished run.
        read_unit: Gives the documents of a unit.
        count: Pairs of its audit.
        seed: Decides which.

    Raises:
        ConfigError: If the run has no pairs yet.
    """
    pairs = PairList(Rows(parts(run.root, "pairs")), count, seed)
    rejections = RejectionList(Rows(parts(run.root, "rejected")))
    return Shop(run, pairs, rejections, Lookup(run, read_unit), _drawer(place_of(run.root)))


def _drawer(place: str) -> Callable[[str, dict[str, Any]], str]:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    pages = Environment(loader=FileSystemLoader(_HERE / "pages"), autoescape=True, undefined=StrictUndefined)
    pages.filters["shown"] = lambda value: shown(str(value))
    pages.filters["json_rows"] = _json_rows
    pages.globals |= {"run_name": shown(place), "faults": FAULTS, "whole": GLOBAL_CHUNK}
    return lambda name, values: str(pages.get_template(name).render(values))


def make_app(shop: Shop, access: Access) -> Any:
    """The application, guarded."""
    from fastapi import FastAPI, Request
    from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
    from fastapi.staticfiles import StaticFiles

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def page(make: Callable[..., str]) -> Callable[..., Any]:
        def answer(request: Request) -> HTMLResponse:
            try:
                wanted = read_wanted(request.query_params)
                return HTMLResponse(make(shop, wanted, **request.path_params))
            except BadAddressError as error:
                return HTMLResponse(shop.draw("trouble.html", {"line": str(error)}), 400)
            except _NothingThereError as error:
                return HTMLResponse(shop.draw("trouble.html", {"line": str(error)}), 404)
            except FineInstructionsError as error:
                return HTMLResponse(shop.draw("trouble.html", {"line": shown(str(error))}), 500)

        return answer

    def thresholds(request: Request) -> HTMLResponse:
        try:
            found = thresholds_page(shop, request.query_params)
        except BadAddressError as error:
            return HTMLResponse(shop.draw("trouble.html", {"line": str(error)}), 400)
        return HTMLResponse(found)

    async def label(request: Request) -> JSONResponse:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_POST_BYTES:
                return JSONResponse({"trouble": "too long"}, 413)
        return JSONResponse(*take_label(shop, body))

    app.add_api_route("/", lambda: RedirectResponse("/pairs"), methods=["GET"])
    app.add_api_route("/pairs", page(pairs_page), methods=["GET"], response_class=HTMLResponse)
    app.add_api_route("/pair", page(listed_pair_page), methods=["GET"], response_class=HTMLResponse)
    app.add_api_route("/pair/{pair_id}", page(pair_page), methods=["GET"], response_class=HTMLResponse)
    app.add_api_route("/rejections", page(rejections_page), methods=["GET"], response_class=HTMLResponse)
    app.add_api_route("/rejection", page(rejection_page), methods=["GET"], response_class=HTMLResponse)
    app.add_api_route("/thresholds", thresholds, methods=["GET"], response_class=HTMLResponse)
    app.add_api_route("/labels", label, methods=["POST"])
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    return Guard(app, access)


class _NothingThereError(Exception):
    """A row that the run does not have."""


def pairs_page(shop: Shop, wanted: Wanted) -> str:
    """The list of pairs."""
    found = shop.pairs.page(wanted)
    rows = shop.pairs.rows.take(found.rows, _LISTED)
    labels = read_labels(shop.run.root)
    listed = [
        {
            **row,
            "instruction": _beginning(row["instruction"]),
            "answer": _beginning(row["answer"]),
            "link": wanted.link("/pair", at=place, start=0),
            "label": labels.get(row["pair_id"]),
        }
        for place, row in zip(found.places, rows, strict=True)
    ]
    drawn = shop.pairs.drawn_ids if wanted.sample else []
    values = {
        "rows": listed,
        "sources": shop.pairs.source_counts,
        "num_drawn": len(drawn),
        "num_labelled": sum(pair_id in labels for pair_id in drawn),
        **_paging(wanted, found, "/pairs"),
    }
    return shop.draw("pairs.html", values)


def _paging(wanted: Wanted, found: Any, path: str) -> dict[str, Any]:
    has_more = found.looked_until < found.total
    back = max(0, wanted.start - PAGE_ROWS)
    return {
        "wanted": wanted,
        "found": found,
        "path": path,
        "next_link": wanted.link(path, start=found.looked_until) if has_more else "",
        "previous_link": wanted.link(path, start=back) if wanted.start and not wanted.q else "",
    }


def listed_pair_page(shop: Shop, wanted: Wanted) -> str:
    """A pair by its place in the list that is wanted."""
    listed = shop.pairs.listed(wanted)
    at = wanted.at or 0
    if at >= len(listed):
        raise _NothingThereError("no pair there; the list is shorter")
    return _pair(shop, wanted, int(listed[at]), at, len(listed))


def pair_page(shop: Shop, wanted: Wanted, pair_id: str) -> str:
    """A pair by its id."""
    row = shop.pairs.rows.find("pair_id", pair_id)
    if row is None:
        raise _NothingThereError(f"no kept pair {shown(pair_id)[:80]}")
    return _pair(shop, wanted, row, None, 0)


def _pair(shop: Shop, wanted: Wanted, row: int, at: int | None, total: int) -> str:
    plain = shop.pairs.rows.take([row], list(schema_of(Pair).names))
    pair = next(from_table(pa.Table.from_pylist(plain, schema=schema_of(Pair)), Pair))
    document = shop.lookup.document(pair.document_id, (row + 0.5) / len(shop.pairs.rows))
    template = shop.lookup.template(pair.template_id)
    spans = [(e.document_start, e.document_end) for e in pair.excerpts]
    values = {
        "pair": pair,
        "row": row,
        "document": document,
        "document_pieces": pieces(document.text, spans) if document else [],
        "answer_pieces": answer_pieces(pair),
        "template": template,
        "template_pieces": template_pieces(template.template) if template else [],
        "queries": shop.lookup.queries(pair.query_ids),
        "label": read_labels(shop.run.root).get(pair.pair_id),
        "list_link": wanted.link("/pairs", start=(at or 0) // PAGE_ROWS * PAGE_ROWS, at=None),
        **_neighbours(wanted, "/pair", at, total),
    }
    return shop.draw("pair.html", values)


def _neighbours(wanted: Wanted, path: str, at: int | None, total: int) -> dict[str, Any]:
    if at is None:
        return {"wanted": wanted, "at": None, "total": 0, "next_link": "", "previous_link": ""}
    return {
        "wanted": wanted,
        "at": at,
        "total": total,
        "next_link": wanted.link(path, at=at + 1) if at + 1 < total else "",
        "previous_link": wanted.link(path, at=at - 1) if at else "",
    }


def rejections_page(shop: Shop, wanted: Wanted) -> str:
    """The list of rejections."""
    found = shop.rejections.page(wanted)
    rows = shop.rejections.rows.take(found.rows)
    listed = [
        {**row, "preview": _preview(row["record"]), "link": wanted.link("/rejection", at=place, start=0)}
        for place, row in zip(found.places, rows, strict=True)
    ]
    counts = shop.rejections.counts
    return shop.draw("rejections.html", {"rows": listed, "counts": counts, **_paging(wanted, found, "/rejections")})


def rejection_page(shop: Shop, wanted: Wanted) -> str:
    """A rejection by its place in the list, beside its document where it has one."""
    listed = shop.rejections.listed(wanted)
    at = wanted.at or 0
    if at >= len(listed):
        raise _NothingThereError("no rejection there; the list is shorter")
    row = int(listed[at])
    (found,) = shop.rejections.rows.take([row])
    record = _record(found["record"])
    document_id = record.get("document_id")
    document = shop.lookup.document(document_id, _share(shop, row)) if isinstance(document_id, str) else None
    template_id = record.get("template_id")
    template = shop.lookup.template(template_id) if isinstance(template_id, str) else None
    values = {
        "rejection": found,
        "facts": _facts(record),
        "document": document,
        "document_pieces": _record_pieces(document.text, record) if document else [],
        "template": template,
        "template_pieces": template_pieces(template.template) if template else [],
        "list_link": wanted.link("/rejections", start=at // PAGE_ROWS * PAGE_ROWS, at=None),
        **_neighbours(wanted, "/rejection", at, len(listed)),
    }
    return shop.draw("rejection.html", values)


def _share(shop: Shop, row: int) -> float:
    """Where in the plan the document of a rejection probably is: among those of its stage."""
    stages = shop.rejections.stages.numbers
    same = stages == stages[row]
    return float((np.count_nonzero(same[:row]) + 0.5) / np.count_nonzero(same))


def _record(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"record": text}
    return found if isinstance(found, dict) else {"record": text}


def _record_pieces(text: str, record: dict[str, Any]) -> list[Piece]:
    """A document with the quotations of a draft that was turned away, where it had any."""
    try:
        spans = [(int(e["document_start"]), int(e["document_end"])) for e in record.get("excerpts") or ()]
    except (KeyError, TypeError, ValueError):
        spans = []
    return pieces(text, spans)


def _facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    first = ("instruction", "answer", "text", "template", "raw", "judge_feedback")
    order = sorted(record, key=lambda name: (first.index(name) if name in first else len(first), name))
    plain = {n: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for n, v in record.items()}
    return [(shown(name), shown(plain[name])) for name in order if plain[name] not in ("", "null", "[]", "{}")]


def _preview(record: str) -> str:
    found = _record(record)
    names = ("instruction", "text", "template", "answer", "document_id", "record")
    texts = [str(found[name]) for name in names if found.get(name)]
    return _beginning(texts[0] if texts else record)


def _beginning(text: str) -> str:
    return shown(text[:_PREVIEW_CHARS]) + (" ..." if len(text) > _PREVIEW_CHARS else "")


def _json_rows(text: str) -> list[tuple[str, str]]:
    """Rows of a table that shows a JSON object of JSON objects."""
    found = _record(text)
    inner = {k: v if isinstance(v, dict) else {"": v} for k, v in found.items()}
    return [(shown(f"{k} {n}".strip()), shown(str(v))) for k, row in inner.items() for n, v in row.items()]


def thresholds_page(shop: Shop, given: Any) -> str:
    """Sliders, and what the thresholds that they stand at would make of the run."""
    now = shop.now
    chosen = Thresholds(
        int(_limit(given, "min_score", now.min_score, 1, 5)),
        _limit(given, "min_ratio", now.min_ratio, 0, 1),
        _limit(given, "min_cosine", now.min_cosine, -1, 1),
    )
    pairs = shop.pairs
    made = outcome(
        chosen,
        (pairs.scores, pairs.ratios, pairs.cosines),
        shop.low_scores,
        shop.low_ratios,
    )
    return shop.draw(
        "thresholds.html", {"now": now, "chosen": chosen, "made": made, "plots": _threshold_plots(shop, chosen)}
    )


def _limit(given: Any, name: str, default: float, low: float, high: float) -> float:
    try:
        value = float(given.get(name, default))
    except ValueError:
        raise BadAddressError(f"{name}: not a number") from None
    if not low <= value <= high:
        raise BadAddressError(f"{name}: must lie between {low:g} and {high:g}")
    return value


def _threshold_plots(shop: Shop, chosen: Thresholds) -> dict[str, str]:
    marks = {"score": chosen.min_score - 0.5, "ratio": chosen.min_ratio, "cosine": chosen.min_cosine}
    labels = {"score": "judge's score", "ratio": "excerpt ratio", "cosine": "cosine"}
    plots = {}
    for name, (edges, counts) in shop.histograms.items():
        at = [Mark(marks[name], "kept from here")] if edges[0] <= marks[name] <= edges[-1] else []
        title = f"Pairs by {labels[name]}"
        plots[name] = histogram(edges, {"pairs": counts}, title=title, x_label=labels[name], y_label="pairs", marks=at)
    return plots


def take_label(shop: Shop, body: bytes) -> tuple[dict[str, Any], int]:
    """A label as the script sends it, onto the disk; what to answer, and its HTTP status."""
    try:
        given = json.loads(body)
        hint = int(given.get("row", -1))
        label = checked(str(given["pair_id"]), [str(f) for f in given["faults"]], str(given.get("note", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"trouble": "not a label"}, 400
    except ConfigError as error:
        return {"trouble": str(error)}, 400
    if shop.pairs.rows.find("pair_id", label.record_id, hint) is None:
        return {"trouble": "no such pair"}, 404
    add_labels(shop.run.root, [label])
    return {"pair_id": label.record_id, "faults": list(label.faults)}, 200
