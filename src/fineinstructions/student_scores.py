"""What a trained genericizer or instantiator can do, measured by its task on held-out rows.

In: the student's folder, and held-out rows with the reply that it should give. Out: figures beside the ones that it
should have reached. The student is asked by the ordinary operators with the published prompt, in this process, once and
without repairs; what is counted is what the pipeline would make of its replies.

The decision a reader would question: targets are the paper's where it names one and else ours, set before any training
of full size; a figure below its target is a reason to look, not a failure of the command.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fineinstructions.backends.llm import ChatClient, LlmConfig
from fineinstructions.backends.prompt import PUBLISHED
from fineinstructions.markup import SlotSegment, parse_template
from fineinstructions.pairs import instantiate as instantiating
from fineinstructions.pairs.excerpts import ExcerptsConfig, expand
from fineinstructions.pairs.filled import Filled
from fineinstructions.pairs.filled import parse_reply as parse_filled
from fineinstructions.pairs.slots import align_slots
from fineinstructions.records import GLOBAL_CHUNK, Document, Draft, Match, Query, Rejection, Template, TemplateDraft
from fineinstructions.silver.read import Example
from fineinstructions.templates import genericize as genericizing

OURS = "ours, before any training of full size"
_WHOLE_DOCUMENT = 1 << 30
"""The prompt shows a window already; nothing is cut again."""


@dataclass(frozen=True, slots=True)
class Score:
    """One figure of an examination."""

    name: str
    value: float | None
    """None where no row says anything about it."""
    num_rows: int
    """Rows that it is taken over."""
    target: float | None
    """What it should have reached; None where nobody knows."""
    source: str
    """Who says so."""

    @property
    def is_reached(self) -> bool | None:
        """Whether the target is reached; None where there is none, or no figure."""
        return None if self.value is None or self.target is None else self.value >= self.target


def genericizer_objection(example: Example) -> str:
    """Why a row is not for a genericizer; empty for a good one."""
    query = example.prompt[-1].content
    if _turns(example) != genericizing.published_messages(query):
        return "not_published_prompt"
    try:
        return "" if genericizing.parse_reply(example.reply) else "no_template"
    except ValueError:
        return "reply_format"


def instantiator_objection(example: Example) -> str:
    """Why a row is not for an instantiator; empty for a good one."""
    shown = _template_and_document(example)
    if shown is None or _turns(example) != instantiating.published_messages(*shown):
        return "not_published_prompt"
    try:
        parse_filled(example.reply)
    except ValueError:
        return "reply_format"
    return ""


def _turns(example: Example) -> tuple[tuple[str, str], ...]:
    return tuple((turn.role, turn.content) for turn in example.prompt)


def _template_and_document(example: Example) -> tuple[str, str] | None:
    try:
        asked = json.loads(example.prompt[-1].content)
    except ValueError:
        return None
    found = [asked.get(key) for key in ("instruction_template", "document")] if isinstance(asked, dict) else []
    if len(found) != 2 or not all(isinstance(text, str) for text in found):
        return None
    return str(found[0]), str(found[1])


def student_llm(folder: Path, max_tokens: int, device: str = "auto") -> LlmConfig:
    """How a student in a folder is asked: in this process, greedily, and only once."""
    return LlmConfig(
        engine="transformers", model=str(folder), max_tokens=max_tokens, max_reasks=0, temperature=0.0, device=device
    )


def examine_genericizer(rows: Sequence[Example], llm: LlmConfig) -> list[Score]:
    """Figures of a genericizer on held-out rows.

    Args:
        rows: Rows with the reply of a teacher.
        llm: How the student is asked.
    """
    config = genericizing.GenericizeConfig(model="openai", prompt=PUBLISHED)
    queries = [Query(query_id=row.row_id, text=row.prompt[-1].content) for row in rows]
    with closing(ChatClient(llm)) as client:
        model = genericizing.PromptedGenericizer(client, config)
        outcomes = list(genericizing.genericize(queries, model, config))
    reasons = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Rejection))
    parsed = len(rows) - sum(reasons[reason] for reason in ("format", "length", "too_long", "request", "refusal"))
    f1, same = list[float](), list[float]()
    for row, query, outcome in zip(rows, queries, outcomes, strict=True):
        reference = genericizing.parse_reply(row.reply)
        if isinstance(outcome, TemplateDraft) and reference:
            ours, theirs = (slot_words(query.text, template) for template in (outcome.template, reference[0]))
            f1.append(_f1(ours, theirs))
            same.append(float(_slots(outcome.template) == _slots(reference[0])))
    return [
        Score("valid JSON", _share(parsed, len(rows)), len(rows), 0.99, OURS),
        Score("balanced slots", _share(parsed - reasons["slots_malformed"], parsed), parsed, 0.99, OURS),
        Score("accepted templates", _share(len(rows) - reasons.total(), len(rows)), len(rows), 0.95, OURS),
        Score("slot agreement", _mean(f1), len(f1), 0.75, OURS),
        Score("same number of slots", _mean(same), len(same), 0.6, OURS),
    ]


def slot_words(query: str, template: str) -> Counter[str]:
    """Words of a query that a template has put into slots: those that its text outside them lacks.

    Example:
        >>> sorted(slot_words("Is tea from Peru?", "Is <fi>a drink</fi> from <fi>a country</fi>?"))
        ['peru', 'tea']
    """
    outside = "".join(s.text for s in parse_template(template) if not isinstance(s, SlotSegment))
    return Counter(_words(query)) - Counter(_words(outside))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _slots(template: str) -> int:
    return sum(isinstance(segment, SlotSegment) for segment in parse_template(template))


def _f1(ours: Counter[str], theirs: Counter[str]) -> float:
    both = (ours & theirs).total()
    return 2 * both / (ours.total() + theirs.total()) if ours or theirs else 1.0


def examine_instantiator(rows: Sequence[Example], llm: LlmConfig) -> list[Score]:
    """Figures of an instantiator on held-out rows; as `examine_genericizer`."""
    requests = [_request(row) for row in rows]
    config = instantiating.InstantiateConfig(model="openai", prompt=PUBLISHED, max_document_chars=_WHOLE_DOCUMENT)
    with closing(ChatClient(llm)) as client:
        model = instantiating.PromptedInstantiator(client, config)
        outcomes = list(instantiating.instantiate(requests, model))
    references = [parse_filled(row.reply) for row in rows]
    reasons = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Rejection))
    parsed = len(rows) - sum(reasons[reason] for reason in ("format", "length", "too_long", "request", "refusal"))
    drafts = [
        (request, outcome, reference)
        for request, outcome, reference in zip(requests, outcomes, references, strict=True)
        if isinstance(outcome, Draft)
    ]
    tried = parsed - reasons["refused"]
    expanded = list(expand(((draft, r.document) for r, draft, _ in drafts), ExcerptsConfig(min_ratio=0.0)))
    ratios = [found.excerpt_ratio for found in expanded if not isinstance(found, Rejection)]
    grounded = sum(ratio >= ExcerptsConfig().min_ratio for ratio in ratios)
    agreed = [share for r, draft, reference in drafts if (share := _agreement(r, draft, reference)) is not None]
    return [
        Score("valid JSON", _share(parsed, len(rows)), len(rows), 0.99, OURS),
        Score("slots filled", _share(len(drafts), tried), tried, 0.95, OURS),
        Score("slot agreement", _mean(agreed), len(agreed), 0.6, OURS),
        Score("excerpt validity", _share(len(ratios), len(drafts)), len(drafts), 0.9, OURS),
        Score("excerpt ratio", _mean(ratios), len(ratios), 0.8, "paper, section 3.3: at least 80 % of every answer"),
        Score("grounded answers", _share(grounded, tried), tried, 0.8, OURS),
        *_refusals(outcomes, references),
    ]


def _request(row: Example) -> instantiating.Request:
    template, text = _template_and_document(row) or ("", "")
    document = Document(document_id=row.row_id, text=text)
    slots = _slots(template)
    match = Match(document_id=row.row_id, template_id=row.row_id, chunk=GLOBAL_CHUNK, cosine=0.0)
    return instantiating.Request(match, _template(row.row_id, template, slots), document, (0, len(text)))


def _template(template_id: str, template: str, num_slots: int) -> Template:
    return Template(template_id, template, compatible_document_description="", num_slots=num_slots, query_ids=())


def _agreement(request: instantiating.Request, draft: Draft, reference: Filled | None) -> float | None:
    """Share of slots that have the teacher's value; None where that is not to be had."""
    theirs = align_slots(request.template.template, reference.instruction) if reference else None
    if not theirs:
        return None
    ours = [slot.value for slot in draft.slots]
    return sum(_words(a) == _words(b) for a, b in zip(ours, theirs, strict=True)) / len(theirs)


def _refusals(outcomes: Sequence[Draft | Rejection], references: Sequence[Filled | None]) -> list[Score]:
    refused = [isinstance(outcome, Rejection) and outcome.reason == "refused" for outcome in outcomes]
    wanted = [reference is None for reference in references]
    both = sum(ours and theirs for ours, theirs in zip(refused, wanted, strict=True))
    return [
        Score("refusal precision", _share(both, sum(refused)), sum(refused), 0.8, OURS),
        Score("refusal recall", _share(both, sum(wanted)), sum(wanted), 0.7, OURS),
    ]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
