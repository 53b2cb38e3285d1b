"""What audits have found, for people: tables, plots, and the paper's figures beside ours.

In: the audits' JSON. Out: sections of a page.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from fineinstructions.plots import Mark, Series, bars, histogram, line, percent, told
from fineinstructions.review.blocks import Example, Grid, Plots, Section, Words, to_html
from fineinstructions.review.distribution import DIVERGENCES
from fineinstructions.review.diversity import PAPER_EXPONENT, PAPER_FACTOR, PAPER_TOP_SHARE
from fineinstructions.review.efficiency import ASKED_HEAD, asked_rows
from fineinstructions.review.labels import PAIRS, TEMPLATES, Audited
from fineinstructions.review.sheet import SheetRow
from fineinstructions.review.viewer.marking import Piece, shown

_MAX_CLASSES = 12
NEARLY_ALL = 0.7
"""Share of finds from which on no weight can add much. Ours."""


def audit_sections(found: dict[str, Any]) -> list[Section]:
    """Sections of the audits that have been made, in a fixed order."""
    makers = {
        "quality": ("Audit: quality", _quality),
        "distribution": ("Audit: what is asked, beside real queries", _distribution),
        "diversity": ("Audit: diversity", _diversity),
        "efficiency": ("Audit: cost", _efficiency),
    }
    return [Section(title, list(make(found[name]))) for name, (title, make) in makers.items() if name in found]


def _share(value: float | None) -> str:
    return "-" if value is None else percent(round(value, 4))


def _quality(found: dict[str, Any]) -> Iterator[Any]:
    judged = found["rates"]["run"][0]["num_judged"]
    yield Words(
        f"A sample of {found['num_pairs']:,} pairs (seed {found['seed']}), of which people have judged {judged:,}. "
        "Fill in sheet.csv, or press the keys 0 to 4 in the viewer; intervals are Wilson's, 95 %."
    )
    yield from _said(found, PAIRS)
    templates = found.get("templates")
    if templates:
        judged = templates["rates"]["run"][0]["num_judged"]
        yield Words(
            f"A sample of {templates['num_templates']:,} templates of all that the run has, of which people judged "
            f"{judged:,}. Fill in templates.csv."
        )
        yield from _said(templates, TEMPLATES)


def _said(found: dict[str, Any], of: Audited) -> Iterator[Any]:
    """What people and judges have said of one sheet."""
    yield from _error_rates(found, of)
    for judge, said in found.get("judges", {}).items():
        yield Words(f"By {judge}, a language model and no person: {_of_judge(said)}.")
        yield from _error_rates(said, of, f", by {judge}")
    yield Words("; ".join(f"{n.replace('_', ' ')}: {meaning}" for n, meaning in of.faults.items()) + ".", is_quiet=True)


def _of_judge(said: dict[str, Any]) -> str:
    """What a reader of a judge's figures must know."""
    read = sum(rates[0]["num_judged"] for rates in said["rates"].values())
    told = f"{read:,} rows judged, {said['num_unparsed']:,} replies that could not be read and left their rows empty"
    return told + (
        f"; agrees with people on {said['num_agreed']:,} of {said['num_both']:,}" if said["num_both"] else ""
    )


def _error_rates(found: dict[str, Any], of: Audited, by: str = "") -> Iterator[Any]:
    """Rates of both arms by somebody's labels, their difference, and a plot; nothing where nothing is judged."""
    if not any(rates[0]["num_judged"] for rates in found["rates"].values()):
        return
    rows = []
    for arm, rates in found["rates"].items():
        name = {"run": "this run", "direct": "prompted directly"}.get(arm, arm)
        for rate in rates:
            interval = f"{_share(rate['low'])} to {_share(rate['high'])}" if rate["num_judged"] else "-"
            rows.append((name, _fault(rate), rate["num_wrong"], rate["num_judged"], _share(rate["share"]), interval))
    yield Grid((f"{of.name}s", "fault", "found", "judged", "share", "interval"), rows)
    difference = (found.get("difference") or {}).get("any")
    if difference:
        low, high = difference
        yield Words(f"Error rate of this run minus that of direct prompting{by}: {_share(low)} to {_share(high)}.")
    shown = found["rates"]["run"]
    if shown[0]["num_judged"]:
        title = f"Share of judged {of.name}s with a fault{by}"
        plot = bars(
            [_fault(rate) for rate in shown],
            {"share": [rate["share"] or 0.0 for rate in shown]},
            title=title,
            tell=percent,
            intervals={"share": [(rate["low"], rate["high"]) for rate in shown]},
        )
        yield Plots([(title, plot)])


def _fault(rate: dict[str, Any]) -> str:
    return "anything wrong" if rate["name"] == "any" else str(rate["name"]).replace("_", " ")


def sheet_page(rows: Sequence[SheetRow]) -> str:
    """The sheet as a page to read beside ``sheet.csv``, in the same order; marks are not in it, nor is the arm."""
    faults = [Words(f"{name.replace('_', ' ')}: {meaning}") for name, meaning in PAIRS.faults.items()]
    blocks: list[Any] = [
        Words("Pairs in the order of sheet.csv, one row each. Put an x under each fault, or under judged alone.")
    ]
    pairs: list[Any] = [_example(number, row) for number, row in enumerate(rows, start=1)]
    return to_html("Audit sheet", [Section("What to look for", [*blocks, *faults]), Section("Pairs", pairs)])


def _example(number: int, row: SheetRow) -> Example:
    """A pair of the sheet; below it what it was asked for by, as far as that is known, and its id."""
    instruction, answer, document, template, query = row.texts
    known = [("template", template), ("query", query)]
    behind = " \u00b7 ".join([*(f"{name}: {text}" for name, text in known if text), row.record_id])
    return Example(f"{number}. {instruction}", [Piece(shown(answer))], behind, document)


def _distribution(found: dict[str, Any]) -> Iterator[Any]:
    yield Words(
        f"{found['num_pairs']:,} instructions beside {found['num_queries']:,} real queries of this run, by "
        "their words. Divergences are in bits, smoothed by half a row; Jensen-Shannon is 0 for the same shares and 1 "
        "for shares that have nothing in common."
    )
    rows = []
    plots = []
    for one in found["comparisons"]:
        if not sum(row["real"] for row in one["classes"]):
            continue
        figures = [cell for name in DIVERGENCES for cell in (one[name], _interval(one, name))]
        few = ", ".join(one["under_represented"][:6]) or "none"
        rows.append((one["name"], *figures, few))
        plots.append((f"By {one['name']}", _beside(one)))
    heads = [
        cell for title in ("KL generated, real", "KL real, generated", "Jensen-Shannon") for cell in (title, "95 %")
    ]
    yield Grid(("by", *heads, "under-represented"), rows)
    yield Plots(plots)
    yield from _proposed(found)


def _proposed(found: dict[str, Any]) -> Iterator[Any]:
    """What to ask for next time, and where asking cannot help."""
    now, proposed, finds = found["target_now"], found["target_proposed"], found.get("finds")
    slots = [str(n) if n < len(now) - 1 else f"{n} and more" for n in range(len(now))]
    columns = [slots, now, proposed]
    heads = ["slots", "asked for now", "proposed"]
    if finds:
        columns += [[row["found"] for row in finds], [row["chosen"] for row in finds]]
        heads += ["found by documents", "of these chosen"]
    yield Words("Slot counts to ask for, so that the next run comes nearer to real queries (sample.target):")
    yield Grid(heads, list(zip(*columns, strict=True)))
    yield Words("sample: {target: " + str(proposed) + "}", is_quiet=True)
    few = exhausted(found)
    if few:
        yield Words(
            f"Weights can hardly bring more pairs of {', '.join(few)} slots: nearly all templates of that kind that "
            "documents found are chosen already. More documents, other queries, a lower threshold or a model that "
            "answers such templates can."
        )


def exhausted(found: dict[str, Any]) -> list[str]:
    """Slot counts that a distribution audit proposes more of, and whose finds are nearly all chosen already."""
    rows = zip(found["target_now"], found["target_proposed"], found.get("finds") or (), strict=False)
    return [
        str(n)
        for n, (now, proposed, finds) in enumerate(rows)
        if proposed > now and finds["real"] and finds["chosen"] >= NEARLY_ALL * finds["found"]
    ]


def _interval(one: dict[str, Any], name: str) -> str:
    """The interval of a divergence; audits of an earlier version have it of Jensen-Shannon alone."""
    low, high = one.get(f"{name}_low"), one.get(f"{name}_high")
    return "-" if low is None or high is None else f"{told(low)} to {told(high)}"


def _beside(one: dict[str, Any]) -> str:
    classes = one["classes"][:_MAX_CLASSES]
    totals = {side: sum(row[side] for row in one["classes"]) or 1 for side in ("generated", "real")}
    values = {side: [row[side] / total for row in classes] for side, total in totals.items()}
    return bars([row["class"] for row in classes], values, title=f"Shares by {one['name']}", tell=percent)


def _diversity(found: dict[str, Any]) -> Iterator[Any]:
    grown, places = found["growth"], found["places"]
    plots = [("Distinct templates after so many documents", _growth_plot(grown))] if grown["documents"] else []
    edges = [n / 20 for n in range(21)]
    marks = [Mark(0.19, "19 %"), Mark(0.71, "71 %")]
    title = "Where in the document the answer stands"
    counts = {"pairs": places["histogram"]}
    plots.append((title, histogram(edges, counts, title=title, x_label="place", y_label="pairs", marks=marks)))
    yield Plots(plots)
    top = f"{grown['top_template']}"
    yield Grid(
        ("figure", "this run", "paper"),
        [
            ("distinct templates", _power(grown), f"{PAPER_FACTOR:,} x^{PAPER_EXPONENT}, r\u00b2 0.96"),
            ("share of the most frequent template", _share(grown["top_share"]), f"< {percent(PAPER_TOP_SHARE)}"),
            ("most frequent template", top, ""),
            ("answers between 19 and 71 % of the document", _share(places["between_19_and_71_percent"]), "most"),
            ("Pearson of chunk and place", _number(places["pearson_chunk_place"]), "0.99"),
        ],
    )
    ours, real = found["generated"], found["real"] or {}
    names = {
        "near_duplicate_share": "near duplicates",
        "embedding_spread": "mean cosine distance of two",
        "self_bleu": "self-BLEU (less is more varied)",
        "words_mean": "words, mean",
        "words_sd": "words, standard deviation",
        "first_words": "different first words per text",
        "question_marks": "end with a question mark",
        "capitalised": "begin with a capital",
        "you_or_i": "speak of I or you",
    }
    yield Grid(
        ("wording", "instructions", "real queries"),
        [(w, _number(ours[n]), _number(real.get(n))) for n, w in names.items()],
    )
    both = list(dict.fromkeys([*list(ours["openings"])[:8], *list(real.get("openings", {}))[:8]]))
    rows = [(o, _share(ours["openings"].get(o, 0.0)), _share(real.get("openings", {}).get(o, 0.0))) for o in both]
    yield Grid(("begins, from a task's verb on", "instructions", "real queries"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _power(grown: dict[str, Any]) -> str:
    if grown.get("exponent") is None or grown["exponent"] != grown["exponent"]:
        return "-"
    return f"{told(grown['factor'])} x^{grown['exponent']:.2f}, r\u00b2 {grown['r_squared']:.2f}"


def _growth_plot(grown: dict[str, Any]) -> str:
    x = grown["documents"]
    series = [Series("this run", x, grown["templates"], has_dots=True)]
    if grown.get("exponent") is not None and grown["exponent"] == grown["exponent"]:
        series.append(Series("its fit", x, [grown["factor"] * n ** grown["exponent"] for n in x], is_dashed=True))
    title = "Distinct templates against documents"
    return line(series, title=title, x_label="documents", y_label="templates", log_x=True, log_y=True)


def _efficiency(found: dict[str, Any]) -> Iterator[Any]:
    rows = [(s["stage"], s["num_in"], s["num_out"], _per(s["seconds"], found)) for s in found["stages"]]
    yield Grid(("stage", "in", "out", "worker seconds per kept pair"), rows)
    asked = asked_rows(found["stages"], found["num_pairs"])
    if asked:
        yield Words("What language models were asked, for each kept pair in brackets:")
        yield Grid(ASKED_HEAD, asked)
        yield Words(ASKED_NOTE, is_quiet=True)
    else:
        yield Words("No language model was asked, or the run is older than the count of its questions.", is_quiet=True)
    per_pair = found["per_pair"]
    facts = [
        ("kept pairs", f"{found['num_pairs']:,}"),
        ("worker seconds", f"{found['worker_seconds']:,.0f}"),
        ("worker seconds per kept pair", _number(per_pair["worker_seconds"])),
    ]
    for name, title in (("worker_money", "money for workers"), ("model_money", "money for language models")):
        if found[name] is not None:
            facts += [(title, f"{found[name]:,.4f}"), (f"{title} per kept pair", _money(per_pair[name]))]
    yield Grid(("figure", "value"), facts)
    timed = [(s["phase"], s["seconds"]) for s in found["stages"] if s["seconds"]]
    if timed:
        plot = bars([name for name, _ in timed], {"seconds": [s for _, s in timed]}, title="Worker seconds by phase")
        yield Plots([("Worker seconds by phase", plot)])


ASKED_NOTE = (
    "Calls are replies, those sent back for repair included; tokens as the servers count. Seconds run from request to "
    "reply, and many requests are under way at once. Money: llm.prompt_price and llm.completion_price of the recipe."
)


def _money(amount: float | None) -> str:
    return "-" if amount is None else f"{amount:.6f}"


def _per(seconds: float | None, found: dict[str, Any]) -> str:
    return "" if seconds is None or not found["num_pairs"] else f"{seconds / found['num_pairs']:.4f}"
