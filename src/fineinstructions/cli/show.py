"""Records as a person reads them on a terminal: pairs with their quotes marked, rejections with their reason."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fineinstructions.errors import STEERING, counted, printable
from fineinstructions.records import GLOBAL_CHUNK, Pair, Rejection

if TYPE_CHECKING:
    from fineinstructions.forecast import Forecast
    from fineinstructions.review.lineage import Lineage
    from fineinstructions.runs import RunStatus
    from fineinstructions.trial import Trial

_PREVIEW_CHARS = 300
_MAX_WIDTH = 100
_HARD_END = re.compile(r"(?<=[^\n]{50})\n(?=[^\W\d_])")
"""The end of a long line that is followed by another line of the same paragraph."""
_UNSAFE = re.compile(f"[{STEERING}]")
_MAX_TRIAL_ROWS = 12
_MAX_QUERIES = 10
_MAX_SHOWN_HUBS = 5


@dataclass(frozen=True)
class Shown:
    """Text with spans that are quoted from a document: green, or between « and » where nothing is coloured.

    Attributes:
        text: The text, without marks.
        spans: Characters that are quoted, in order.
        max_chars: Cut after this many characters; ``None`` shows everything.
    """

    text: Text
    spans: tuple[tuple[int, int], ...]
    max_chars: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """What rich prints."""
        del options
        is_cut = self.max_chars is not None and len(self.text) > self.max_chars
        text = self.text[: self.max_chars] if is_cut else self.text.copy()
        spans = [(start, min(stop, len(text))) for start, stop in self.spans if start < len(text)]
        if has_colours(console):
            for start, stop in spans:
                text.stylize("green", start, stop)
        else:
            text = _with_marks(text, spans)
        if is_cut:
            text.append(" ...", style="dim")
        yield text


def has_colours(console: Console) -> bool:
    """Whether a colour can be seen: not in a pipe or a file, and not where NO_COLOR is set."""
    return console.color_system is not None and not console.no_color


def _with_marks(text: Text, spans: Sequence[tuple[int, int]]) -> Text:
    pieces: list[Text] = []
    position = 0
    for start, stop in spans:
        pieces += [text[position:start], Text("«"), text[start:stop], Text("»")]
        position = stop
    return Text.assemble(*pieces, text[position:])


def quoted(pair: Pair, max_chars: int | None = None) -> Shown:
    """A pair's answer, with what is quoted from the document told apart.

    Args:
        pair: The pair.
        max_chars: Cut after this many characters; ``None`` shows everything.
    """
    answer = Text.assemble(("Answer  ", "bold"), flowing(pair.answer))
    shift = len(answer) - len(pair.answer)
    spans = tuple((e.answer_start + shift, e.answer_end + shift) for e in pair.excerpts)
    return Shown(answer, spans, None if max_chars is None else max_chars + shift)


def flowing(text: str) -> str:
    r"""Text for a terminal, of the same length: hard line ends inside a paragraph and control characters become blanks.

    Example:
        >>> flowing("A line that an editor has broken after seventy characters or thereabouts\nflows on.\n- a list")
        'A line that an editor has broken after seventy characters or thereabouts flows on.\n- a list'
    """
    return _UNSAFE.sub(" ", _HARD_END.sub(" ", text))


def score(pair: Pair) -> str:
    """The judge's score, and the expected one where there is one."""
    expected = "" if pair.judge_expected_score is None else f" (expected {pair.judge_expected_score:.2f})"
    return f"{pair.judge_score}/5{expected}"


def pair_panel(pair: Pair, max_chars: int | None = None) -> Panel:
    """One pair with its source, scores and ids."""
    where = "whole document" if pair.chunk == GLOBAL_CHUNK else f"coverage chunk {pair.chunk}"
    facts = (
        f"score {score(pair)} · quoted {pair.excerpt_ratio:.0%} · cosine {pair.cosine:.3f} ({where}) · "
        f"{pair.source or 'no source column'} · {pair.licence or 'no licence column'}"
    )
    title = f" from: {pair.title}" if pair.title else f" from: {pair.document_id}"
    body = Group(
        Text.assemble(("Instruction  ", "bold"), flowing(pair.instruction)),
        Text(""),
        quoted(pair, max_chars),
        Text(""),
        Text(flowing(facts), style="dim"),
    )
    return _panel(body, pair.pair_id + title)


def _panel(body: RenderableType, title: str) -> Panel:
    name = Text(" ".join(flowing(title).split()), style="cyan")
    return Panel(body, title=name, title_align="left", border_style="dim", width=min(_MAX_WIDTH, _width()))


def _width() -> int:
    return Console().width


def rejection_panel(rejection: Rejection) -> Panel:
    """One rejection: where, why, the value that decided, and the beginning of the record."""
    value = "" if rejection.value is None else f" · value {rejection.value:.3f}"
    word = "failed" if rejection.failed else "rejected"
    record = json.loads(rejection.record)
    why = printable(f"{word} at {rejection.stage}: {rejection.reason}{value}")
    lines: list[RenderableType] = [Text(why, style="yellow")]
    if isinstance(record, dict):
        for key in ("text", "template", "instruction", "answer", "raw", "judge_feedback"):
            if record.get(key):
                shown = str(record[key])
                cut = shown[:_PREVIEW_CHARS] + (" ..." if len(shown) > _PREVIEW_CHARS else "")
                lines.append(Text.assemble((f"{key}: ", "bold"), flowing(cut)))
        lines += [Text(flowing(nearest)) for nearest in [_nearest(record)] if nearest]
        if record.get("file"):
            where = f"{record['file']}, row {record.get('row', '?')}"
            lines.append(Text(flowing(where + (f": {record['detail']}" if record.get("detail") else ""))))
    return _panel(Group(*lines), rejection.record_id)


def _nearest(record: dict[str, Any]) -> str:
    """How near the nearest template was to a document that found none; empty where that is not known."""
    if not {"template_id", "cosine", "min_cosine"} <= record.keys():
        return ""
    words = f"{record['template']}  " if record.get("template") else ""
    return (
        f"nearest template: {words}({record['template_id']}), cosine {record['cosine']:.3f},"
        f" threshold {record['min_cosine']:.3f}"
    )


def funnel_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The funnel: one row per stage with what came in, what went on, and why the rest did not.

    Args:
        rows: Dictionaries with ``stage``, ``unit`` (what is counted), ``in``, ``out``, ``rejected`` and ``failed``
            (reason to count).
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    table.add_column("in", justify="right")
    table.add_column("out", justify="right", style="green")
    table.add_column("of", style="dim")
    table.add_column("rejected, by reason", overflow="fold")
    for row in rows:
        reasons = _reasons(row["rejected"], "") + _reasons(row["failed"], " (failed)")
        why = Text(printable(", ".join(reasons)))
        table.add_row(row["stage"], f"{row['in']:,}", f"{row['out']:,}", row["unit"], why)
    return table


def _reasons(counts: dict[str, int], suffix: str) -> list[str]:
    return [f"{reason}{suffix} {n:,}" for reason, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def print_pairs(console: Console, pairs: Iterable[Pair], max_chars: int | None = None) -> None:
    """Print pairs below each other."""
    for pair in pairs:
        console.print(Padding(pair_panel(pair, max_chars), (0, 0, 1, 0)))


def status_table(state: "RunStatus") -> Table:
    """Units, rates and time left, one row per phase."""
    holder = printable(state.holder) if state.holder else "nobody"
    working = Text(f"{holder} is working on it", style="table.caption")
    table = Table(box=None, pad_edge=False, header_style="bold", caption=working, caption_justify="left")
    for name in ("phase", "units", "rows", "units/s", "left", "set aside"):
        table.add_column(name, justify="left" if name == "phase" else "right")
    for phase in state.phases:
        units = "not planned" if phase.num_units is None else f"{phase.num_done:,}/{phase.num_units:,}"
        rate = f"{phase.units_per_second:.2f}" if phase.units_per_second else ""
        left = f"{phase.eta_seconds:,.0f} s" if phase.eta_seconds else "done" if phase.complete else ""
        rows = f"{phase.num_rows_done:,}" if phase.num_rows else ""
        table.add_row(phase.name, units, rows, rate, left, str(phase.num_set_aside or ""))
    return table


def diagnostics_view(figures: "dict[str, Any]") -> Group:
    """How matching went: spread and coverage, slot counts against the target, the templates that come most often."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    vectors = figures["vectors"]
    names = ["whole" if vector["chunk"] == GLOBAL_CHUNK else str(vector["chunk"]) for vector in vectors]
    lines = {
        "documents searched": f"{figures['num_documents']:,}, {figures['without_candidate_share']:.1%} found nothing",
        "candidates per document": f"mean {figures['candidates_mean']:,.1f}; 5 % {figures['candidates_p5']:,}, "
        f"50 % {figures['candidates_p50']:,}, 95 % {figures['candidates_p95']:,}",
        "vectors that found any": ", ".join(
            f"{name} {vector['found_share']:.0%}" for name, vector in zip(names, vectors, strict=True)
        )
        + (f"; all of them {figures['all_vectors_share']:.0%}" if len(vectors) > 1 else ""),
        "sampled by vector": ", ".join(
            f"{name} {vector['num_sampled']:,}" for name, vector in zip(names, vectors, strict=True)
        ),
        "slots, sampled (target)": ", ".join(_slot_shares(figures["slots"])),
        "templates": f"{figures['num_templates']:,}; never found {figures['num_never_retrieved']:,}, "
        f"never sampled {figures['num_never_sampled']:,}",
        "hubness": f"top 1 % of templates take {figures['top_percent_share']:.1%} of all finds; "
        f"skewness {figures['skewness']:.1f}",
    }
    for name, line in lines.items():
        table.add_row(name, line)
    hubs = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("found", "sampled", "most found templates"):
        hubs.add_column(name, justify="left" if name.startswith("most") else "right", overflow="fold")
    for hub in figures["hubs"][:_MAX_SHOWN_HUBS]:
        hubs.add_row(f"{hub['num_documents']:,}", f"{hub['num_sampled']:,}", Text(flowing(hub["template"])))
    return Group(Text("matching", style="bold underline"), table, Text(""), hubs)


def _slot_shares(slots: "list[dict[str, Any]]") -> Iterator[str]:
    for slot in slots:
        more = "+" if slot is slots[-1] else ""
        yield f"{slot['num_slots']}{more}: {slot['sampled_share']:.0%} ({slot['target_share']:.0%})"


def forecast_view(figures: "Forecast") -> Group:
    """A forecast, one row per figure, the sample it comes from, and what it cannot know."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    made = {
        "templates (of the sample)": figures.num_templates,
        "matches to instantiate": figures.num_matches,
        "pairs kept": figures.num_pairs,
    }
    servers = ", servers aside" if figures.calls else ""
    rows = {
        "queries": figures.num_queries,
        "documents": figures.num_documents,
        **({} if figures.calls else made),
        f"seconds here{servers}": round(figures.seconds),
        "MB on disk": round(figures.bytes_on_disk / 1e6),
    }
    for name, number in rows.items():
        table.add_row(name, f"{number:,}")
    for calls in figures.calls:
        limit = ", at most" if calls.is_limit else ""
        told = Text(printable(f"calls of {calls.model} to {calls.stage}{limit}"))
        table.add_row(told, f"{calls.num_calls:,}")
        table.add_row("  prompt tokens, about", f"{calls.prompt_tokens:,}")
        table.add_row("  reply tokens, about", f"{calls.completion_tokens:,}")
        if calls.cost is not None:
            table.add_row("  cost at the recipe's prices, about", f"{calls.cost:,.2f}")
    queries, documents = counted(figures.sample_queries, "query"), counted(figures.sample_documents, "document")
    lines = [f"from a sample of {queries} and {documents}, with the embedded models"]
    if figures.calls:
        by_embedded = ", ".join(f"{name.split(' (')[0]} {number:,}" for name, number in made.items())
        lines += [
            f"they make: {by_embedded}; a language model makes more",
            "No model or server was asked. Not known before: how many templates, matches and pairs the recipe's own"
            " models make, how long they take, and how long their replies are. To know, run with a small --limit and"
            " another --out, then look at 'fineinstructions status'.",
        ]
    return Group(table, *(Text(line, style="dim italic") for line in lines))


def lineage_view(lineage: "Lineage") -> Group:
    """A pair's lineage, from the queries down to the scores."""
    pair, template = lineage.pair, lineage.template
    lines: list[RenderableType] = [Text("queries", style="bold")]
    lines += [
        Text(f"  {flowing(q.text)}  ({printable(f'{q.query_id}, {q.source}')})") for q in lineage.queries[:_MAX_QUERIES]
    ]
    more = len(lineage.queries) - _MAX_QUERIES
    lines += [Text(f"  ... and {more} more", style="dim")] if more > 0 else []
    lines += [] if lineage.queries else [Text(f"  {printable(', '.join(pair.query_ids))}")]
    lines += [
        Text("template", style="bold"),
        Text(f"  {flowing(template.template)}  ({printable(template.template_id)})"),
        Text(f"  {flowing(template.compatible_document_description)}", style="dim"),
        Text("document", style="bold"),
        *(Text(f"  {flowing(fact)}") for fact in _document_facts(pair)),
        Text("match", style="bold"),
    ]
    for match in lineage.matches:
        where = "whole document" if match.chunk == GLOBAL_CHUNK else f"chunk {match.chunk}"
        chosen = "chosen" if match.sampled else "not chosen"
        lines.append(Text(f"  {where}: cosine {match.cosine:.4f}, one of {match.num_above:,} above, {chosen}"))
    lines += [
        Text("slots", style="bold"),
        *(Text(f"  {printable(f'{slot.name}: {slot.value}')}") for slot in pair.slots),
    ]
    lines.append(Text("excerpts", style="bold"))
    for quote in lineage.quotes:
        span = f"  {quote.document_start:,}-{quote.document_end:,} "
        before, after = (" ".join(flowing(side).split()) for side in (quote.before, quote.after))
        start = len(span) + len(before) + 1
        line = Text.assemble(span, (f"{before} ", "dim"), flowing(quote.text), (f" {after}", "dim"))
        lines.append(Shown(line, ((start, start + len(quote.text)),)))
    lines.append(Text("models", style="bold"))
    lines += [Text(f"  {role}: {json.dumps(model)}") for role, model in json.loads(pair.models).items()]
    lines += [Text("judge", style="bold"), Text(f"  {score(pair)}: {flowing(pair.judge_feedback)}")]
    return Group(*lines, Text(""), pair_panel(pair))


def _document_facts(pair: Pair) -> list[str]:
    """A pair's document in lines: title and id, address, source and licence, as far as known."""
    name = f"{pair.title}  ({pair.document_id})" if pair.title else pair.document_id
    origin = ", ".join(fact for fact in (pair.source, pair.licence) if fact)
    return [fact for fact in (name, pair.url, origin) if fact]


def trial_view(trial: "Trial") -> Group:
    """What every stage made of one document."""
    lines: list[RenderableType] = []
    for step in (step for step in trial.steps if step.made or step.rejected):
        made = f"{len(step.made)} made" + (f", {len(step.rejected)} turned away" if step.rejected else "")
        lines.append(Text.assemble("\n" if lines else "", (step.stage, "bold"), f"  {made}"))
        lines += [Text(f"  {_trial_line(item, trial.templates)}") for item in step.made[:_MAX_TRIAL_ROWS]]
        if len(step.made) > _MAX_TRIAL_ROWS:
            lines.append(Text(f"  ... and {len(step.made) - _MAX_TRIAL_ROWS} more", style="dim"))
        for rejection in step.rejected[:_MAX_TRIAL_ROWS]:
            value = "" if rejection.value is None else f" ({rejection.value:.3f})"
            lines.append(Text(f"  {rejection.reason}{value}: {printable(rejection.record_id)}", style="yellow"))
            lines += [Text(f"    {flowing(why)}") for why in _why(rejection)]
    pairs = [item for item in trial.step("select").made if isinstance(item, Pair)]
    lines.append(Text(f"\n{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} kept\n", style="bold"))
    return Group(*lines, *(pair_panel(pair) for pair in pairs))


def _why(rejection: Rejection) -> Iterator[str]:
    """What a person has to know of a rejection beside its reason."""
    if rejection.reason == "no_compatible_template":
        yield (
            "the document says nothing that the embedded gate knows as an answer to a template, however near its vector"
        )
    if nearest := _nearest(json.loads(rejection.record)):
        yield nearest


_TRIAL_FACTS = {
    "num_tokens": "{:,} tokens",
    "chunk_starts": "chunks start at characters {}",
    "instruction": "{}",
    "template": "{}",
    "template_id": "{}",
    "cosine": "cosine {:.3f}",
    "chunk": "{}",
    "excerpt_ratio": "quoted {:.0%}",
    "judge_score": "score {}/5",
}


def _trial_line(item: Any, templates: dict[str, str]) -> str:
    """One line for whatever a stage made, with the words of its template where it has none of its own."""
    values = {name: getattr(item, name) for name in _TRIAL_FACTS if hasattr(item, name)}
    if "instruction" in values:
        values = {name: value for name, value in values.items() if name not in ("template_id", "cosine", "chunk")}
    elif words := templates.get(values.get("template_id", "")):
        values = {**{name: value for name, value in values.items() if name != "template_id"}, "template": words}
    if "chunk" in values:
        values["chunk"] = "whole document" if values["chunk"] == GLOBAL_CHUNK else f"chunk {values['chunk']}"
    if "chunk_starts" in values:
        values["chunk_starts"] = ", ".join(f"{start:,}" for start in values["chunk_starts"])
    return flowing(", ".join(_TRIAL_FACTS[name].format(value) for name, value in values.items()))
