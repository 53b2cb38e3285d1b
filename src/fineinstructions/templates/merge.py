"""Drafts to templates: one template per distinct meaning, over the whole corpus.

In: the drafts of all queries, in any order. Out: one template per group of drafts that ask the same thing, and a
rejection for every draft that did not make it. The decision to question: a frame that only one query used, or only
queries about one topic, is dropped by default: wording that two people share is wording, and wording of one person is
often a leftover of their topic.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from pydantic import Field

from fineinstructions.config import Config
from fineinstructions.embedded.words import ADJECTIVES, FUNCTION_WORDS, stem
from fineinstructions.markup import SlotSegment, parse_template, print_template
from fineinstructions.pii import scrub
from fineinstructions.records import Rejection, Template, TemplateDraft, content_id, rejection


class MergeConfig(Config):
    """How drafts become templates."""

    min_queries: int | None = Field(default=None, ge=1)
    """Fewest different queries that share a template, tense and adjectives aside; `null` means 2 for the embedded
    genericizer and 1 for a model server. Above 1, queries that all name the same thing in a slot count as one. Ours:
    measured on 81,541 queries, sharing is what tells wording from topic."""
    max_words: int = Field(default=40, ge=2)
    """Longest template in words, slots counted as one. Ours."""
    allow_digits: bool = False
    """Keep templates with digits outside their slots. Ours: a digit left over is usually the query's own."""


EMBEDDED_MIN_QUERIES = 2
SERVER_MIN_QUERIES = 1
MAX_PARTICULARS = 3
"""Content words of a frame, adjectives aside, that two or three queries about one event or meeting may share."""
MIN_PARTICULAR_QUERIES = 4

_POLITE = re.compile(r"^(?:please\s+)?(?:(?:can|could) you (?:please )?)?(?:tell me|do you know)\s+|^please\s+")
_HOW_TO = re.compile(
    r"^how (?:to|do (?:you|i|we|people)|can (?:you|i|we|one)|could (?:you|i)|should i|would (?:you|i)|does one) "
)
_SOME = re.compile(r"^(what (?:are|were|is)) some(?: of)? ")
_FUSED = re.compile(r"^(what|who|where|when|how)s ")
_YEAR = re.compile(r"^(?:in )?(?:what|which) year ")
_TENSELESS = {
    **dict.fromkeys(("is", "are", "was", "were"), "be"),
    **dict.fromkeys(("do", "does", "did"), "do"),
    **dict.fromkeys(("has", "have", "had"), "have"),
    "could": "can",
    "kind": "type",
    "kinds": "types",
    "movie": "film",
}
_ASIDE = ADJECTIVES | frozenset(
    ("also", "currently", "first", "last", "most", "next", "now", "originally", "today", "usually")
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


def fold(template: str) -> str:
    """A template's meaning as far as folding tells: slot names, case, punctuation, articles and contractions ignored.

    Args:
        template: Text with ``<fi>`` slots.

    Returns:
        Lower-case words with ``_`` for every slot.

    Raises:
        ValueError: If a tag is unbalanced, nested or empty.

    Example:
        >>> fold("What's the capital of <fi>a country</fi>?") == fold("what is capital of <fi>place</fi>")
        True
        >>> fold("How can I fix <fi>a device</fi>?")
        'how to fix _'
    """
    segments = parse_template(template)
    text = "".join(" \x00 " if isinstance(s, SlotSegment) else s.text for s in segments)
    text = " ".join(text.replace("’", "'").casefold().split()) + " "
    text = _FUSED.sub(r"\1 is ", _POLITE.sub("", text))
    text = re.sub(r"^(what|who|where|when|how|why)'s ", r"\1 is ", text)
    text = _SOME.sub(r"\1 ", _HOW_TO.sub("how to ", text))
    words = ["_" if part == "\x00" else part for part in re.findall(r"\x00|[^\W_]+(?:'[^\W_]+)?|'s", text)]
    return " ".join(word for word in words if word not in {"a", "an", "the"})


def inflected(meaning: str) -> str:
    """A folded template without tense and adjectives: what "when did _ open" and "when does _ first open" share.

    Example:
        >>> inflected("when was _ built") == inflected("in what year were _ first built")
        True
    """
    meaning = _YEAR.sub("when ", meaning)
    return " ".join(_TENSELESS.get(word, word) for word in meaning.split() if word not in _ASIDE)


def is_one_topic(fillers: Sequence[Sequence[str]], template: str) -> bool:
    """Whether all queries of a template name the same thing in a slot, so that its frame may be a leftover of it.

    A last word that all share is a class of things, as in "the gulf war" and "the civil war", where the slot ends the
    template; before more words of the frame it is one of them that went into the slot.

    Args:
        fillers: The slots' texts, a row for each query.
        template: The template, to see whether it ends in a slot.

    Example:
        >>> is_one_topic([["the galaxy"], ["the galaxy volume 2"]], "When did guardians of <fi>a film</fi> come out?")
        True
        >>> is_one_topic([["the gulf war"], ["the civil war"]], "Who fought in <fi>an event</fi>?")
        False
    """
    ends = template.rstrip("?.").endswith("</fi>")
    for slot, texts in enumerate(zip(*fillers, strict=False), start=1):
        named = [[stem(w) for w in _WORD.findall(text.lower()) if w not in FUNCTION_WORDS] for text in texts]
        if not all(named):
            continue
        kept = [words[:-1] if ends and slot == len(fillers[0]) and len(words) > 1 else words for words in named]
        if len({words[0] for words in named}) == 1 or set.intersection(*map(set, kept)):
            return True
    return False


def merge(drafts: Iterable[TemplateDraft], config: MergeConfig) -> Iterator[Template | Rejection]:
    """Make one template of every group of drafts that ask the same thing.

    Args:
        drafts: Drafts of the whole corpus, in any order; all are held in memory.
        config: Limits; `min_queries` left open counts as the embedded tier's.

    Yields:
        Templates in the order of their ids, then rejections in the order of their query ids. Every draft is behind one
        template (its query id is listed there) or has one rejection.

    Source:
        Ours; arXiv:2601.22146, section 3.1, only says that templates are distinct.
    """
    min_queries = config.min_queries or EMBEDDED_MIN_QUERIES
    groups: defaultdict[str, list[TemplateDraft]] = defaultdict(list)
    rejected: list[Rejection] = []
    for draft in drafts:
        reason, meaning = _objection(draft, config)
        if reason:
            rejected.append(rejection("merge", reason, draft.query_id, draft))
        else:
            groups[meaning].append(draft)
    kin: defaultdict[str, list[TemplateDraft]] = defaultdict(list)
    for meaning, group in groups.items():
        kin[inflected(meaning)] += group
    unshared = {key: _unshared(drafts, min_queries) for key, drafts in kin.items()}
    templates = []
    for meaning, group in groups.items():
        if reason := unshared[inflected(meaning)]:
            num_queries = float(len({draft.query_id for draft in group}))
            rejected += [rejection("merge", reason, draft.query_id, draft, num_queries) for draft in group]
        else:
            templates.append(_template(sorted(group, key=_draft_order)))
    yield from sorted(templates, key=lambda t: t.template_id)
    yield from sorted(rejected, key=lambda r: (r.record_id, r.reason, r.record))


def _unshared(drafts: Sequence[TemplateDraft], min_queries: int) -> str:
    """Why too few queries share a wording, or an empty reason."""
    num_queries = len({draft.query_id for draft in drafts})
    if num_queries < min_queries:
        return "frame_not_shared"
    if min_queries == 1:
        return ""
    if is_one_topic([draft.fillers for draft in drafts], drafts[0].template):
        return "one_topic"
    words = [word for word in inflected(fold(drafts[0].template)).split() if word not in FUNCTION_WORDS and word != "_"]
    return "too_particular" if len(words) > MAX_PARTICULARS and num_queries < MIN_PARTICULAR_QUERIES else ""


def _objection(draft: TemplateDraft, config: MergeConfig) -> tuple[str, str]:
    """Why a draft cannot become a template, or an empty reason and its meaning."""
    try:
        segments = parse_template(draft.template)
    except ValueError:
        return "slots_malformed", ""
    outside = " ".join(s.text for s in segments if not isinstance(s, SlotSegment))
    if not any(isinstance(s, SlotSegment) for s in segments):
        return "no_slot", ""
    if len(_WORD.findall(outside)) + len(segments) // 2 > config.max_words:
        return "too_long", ""
    if not config.allow_digits and any(c.isdigit() for c in outside):
        return "digit", ""
    if scrub(outside)[1]:
        return "pii", ""
    return "", fold(draft.template)


def _draft_order(draft: TemplateDraft) -> tuple[str, str, str]:
    return (draft.query_id, draft.template, draft.compatible_document_description)


def _template(group: Sequence[TemplateDraft]) -> Template:
    """The group's template: its most frequent wording, with every slot named by majority."""
    wording = _most_frequent([_wording(d.template) for d in group], prefers_long=True)
    names = [_slot_names(d.template) for d in group]
    voted = tuple(_most_frequent([row[slot] for row in names]) for slot in range(len(names[0])))
    slots = iter(voted)
    template = print_template(
        SlotSegment(next(slots), s.start, s.end) if isinstance(s, SlotSegment) else s for s in parse_template(wording)
    )
    return Template(
        template_id=content_id("t", template),
        template=template,
        compatible_document_description=_description(group, names, voted),
        num_slots=len(voted),
        query_ids=tuple(sorted({d.query_id for d in group})),
        source=_joined(d.source for d in group),
        licence=_joined(d.licence for d in group),
    )


def _wording(template: str) -> str:
    """A template with all slots named alike, so that wordings can be counted."""
    return print_template(
        SlotSegment("slot", s.start, s.end) if isinstance(s, SlotSegment) else s for s in parse_template(template)
    )


def _slot_names(template: str) -> tuple[str, ...]:
    return tuple(s.name for s in parse_template(template) if isinstance(s, SlotSegment))


def _description(group: Sequence[TemplateDraft], names: Sequence[tuple[str, ...]], voted: tuple[str, ...]) -> str:
    """The most frequent description among the drafts whose slots are named as the vote named them, if there are any."""
    agreeing = [d for d, row in zip(group, names, strict=True) if row == voted]
    return _most_frequent([d.compatible_document_description for d in agreeing or group])


def _most_frequent(values: Sequence[str], prefers_long: bool = False) -> str:
    """The most frequent text; of several the longest, if wanted, which has kept its articles, then by text."""
    counts = Counter(values)
    return min(counts, key=lambda value: (-counts[value], -len(value) if prefers_long else 0, value))


def _joined(values: Iterable[str]) -> str:
    return "; ".join(sorted({part for value in values for part in value.split("; ") if part}))
