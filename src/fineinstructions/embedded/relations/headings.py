"""Sections whose heading names a relation ("Treatment", "Directions", "History") or is a question itself.

In: a `Reading` and its subject. Out: `Evidence` with the section's body as the answer. The decision to question: a
section longer than the answer limit gives its first paragraphs only, ended at a border of a paragraph or list.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from fineinstructions.embedded.document_text import Block, Section, split_sentences
from fineinstructions.embedded.relations.grammar import Phrase, is_plural, noun_phrase, noun_stem
from fineinstructions.embedded.relations.questions import NOUN_KEYS, wanted
from fineinstructions.embedded.relations.reading import MAX_ANSWER_WORDS, Evidence, Reading, Subject
from fineinstructions.embedded.relations.standalone import Spans
from fineinstructions.embedded.relations.tables import groups, pattern, words

SKIPPED = pattern("skipped", re.IGNORECASE)
_HEADING_KEYS = {heading.replace("_", " "): keys for heading, keys in groups("heading_keys").items()}
_STANDS_FOR_SUBJECT = pattern("stands_for_subject")
_COMMAND_KEYS = {heading.replace("_", " "): keys for heading, keys in groups("command_heading_keys").items()}
_ABOUT_DISEASE = frozenset(f"noun:{noun}" for noun in words("disease_relations"))
"""Relations whose headings are read on pages about diseases only."""
_OWN_KEYS = words("own_heading_keys")
_BOILERPLATE = pattern("boilerplate")
_DANGLING = pattern("opens_dangling", re.IGNORECASE)
_BEGINS = pattern("begins")
_CONTAGIOUS = re.compile(r"\binfected|\bspreads?\b|contagious|\bbites?\b|\bbitten|contaminat|\bcatch")
_SHED = re.compile(r"\binfect|\bmites?\b|\blice\b|\bfung|\bbacteri|\bparasit|\bwarts?\b|\bacne\b")
_NOT_SHED = re.compile(r"deficien|disease|injur|emia\b|osis\b|itis\b|type \d", re.IGNORECASE)
"""Conditions of which nobody asks how to get rid."""
_NO_STAGES = re.compile(r"\bno (?:\w+ )?staging\b|\bin place of a staging\b")
_LASTING = re.compile(r"syndrome|dystrophy|cancer|palsy|trisomy|genetic|inherit|mutation|unknown", re.IGNORECASE)
_LINK = re.compile(r"https?:|\[\[|More on:|See also|\b(?:Genetic Testing Registry|MedlinePlus|Encyclopedia)\b")
_ANNOUNCES = re.compile(r"\b(?:below|following|these|as follows)\b[^.!?]*[.!?]?(?:\s+[^.!?]+[.!?])?\Z")
"""A list that is to come, in the last two sentences before it."""
_ALL_INGREDIENTS = re.compile(r"\ball (?:of )?(?:the |your )?(?:\w+ )?ingredients\b", re.IGNORECASE)
_SENTENCE_BORDER = re.compile(r"[.!?][)\"”]?(?=\s)|\n\s*\n")
_MAX_TOPIC_WORDS, _OPENING_CHARS, _OPENS_WITHIN = 5, 250, 25
_SENTENCE_ENDS = ".!?\"”)'’"
_MIN_BODY_WORDS = 8
_MIN_STUB_WORDS = 60
"""A section whose parts do not all fit needs this many words to be an answer by itself (ours)."""
_MAX_CUT_WORDS = 150
"""A single long paragraph is cut to this many words, at a sentence (ours)."""
_TASK = re.compile(r"(?:How )?[Tt]o ([a-z]+ .{4,60})\Z")


def heading_evidence(reading: Reading, subject: Subject | None) -> Iterator[Evidence]:
    """Evidence from the sections of a document."""
    seen: set[str] = set()
    skipped = skipped_sections(reading)
    if subject and subject.phrase.kind == "dish":
        yield from _whole_recipe(reading, subject)
    for number, section in enumerate(_with_children(reading)):
        heading = section.heading.casefold().strip()
        if not section.blocks or number in skipped or not section.level:
            continue
        if subject and heading not in seen:
            yield from _by_relation(reading, subject, section, heading)
        yield from _by_question(reading, section, subject)
        if subject is None or subject.phrase.kind != "command":
            yield from _by_topic(reading, section)
        seen.add(heading)


def _whole_recipe(reading: Reading, subject: Subject) -> Iterator[Evidence]:
    """Ingredients and directions together, where they stand together and fit."""
    sections = list(_with_children(reading))
    for first, second in pairwise(sections):
        if not (first.heading.casefold() == "ingredients" and second.heading.casefold() == "directions"):
            continue
        head, tail = body_spans(reading, first), body_spans(reading, second)
        if head and tail and reading.structure.words(head[0][0], tail[0][1]) <= MAX_ANSWER_WORDS:
            for key in ("noun:recipe", "how:make"):
                yield Evidence(key, subject.phrase, ((head[0][0], tail[0][1]),), 0.95)


def _with_children(reading: Reading) -> Iterator[Section]:
    """Sections with the deeper ones behind them, as far as these fit; short ones that cannot take theirs are empty."""
    sections = reading.structure.sections
    for number, section in enumerate(sections):
        blocks = section.blocks
        complete = True
        for child in sections[number + 1 :]:
            if child.level <= section.level or not complete:
                break
            grown = (*blocks, *child.blocks)
            complete = bool(blocks) and reading.structure.words(blocks[0].start, grown[-1].end) <= MAX_ANSWER_WORDS
            blocks = grown if complete else blocks
        stub = not complete and blocks and reading.structure.words(section.start, blocks[-1].end) < _MIN_STUB_WORDS
        yield Section(section.heading, section.level, () if stub else blocks)


def skipped_sections(reading: Reading) -> frozenset[int]:
    """Indices of sections that hold exercises, references or link lists."""
    skipped, inside = set(), False
    for number, section in enumerate(reading.structure.sections):
        if SKIPPED.fullmatch(section.heading.strip()):
            inside = True
        elif section.level < 7:
            inside = False
        if inside:
            skipped.add(number)
    return frozenset(skipped)


def body_spans(reading: Reading, section: Section) -> Spans | None:
    """Span of a section's body that can stand as an answer, or nothing."""
    blocks = _leading(reading, _without_summary(reading, section.blocks))
    if not blocks or any(block.kind == "table" for block in blocks):
        return None
    start, end = blocks[0].start, blocks[-1].end
    start = _after_question(reading, start, end)
    text = _before_boilerplate(reading.text[start:end])
    if (
        len(text.split()) < _MIN_BODY_WORDS
        or text[-1] in ":,;"
        or (_DANGLING.match(text) and not _STANDS_FOR_SUBJECT.match(text))
    ):
        return None
    if blocks[-1].kind == "paragraph" and text[-1] not in _SENTENCE_ENDS:
        return None
    if len(_LINK.findall(text)) > 1 or text.startswith("- -"):
        return None
    return ((start, start + len(text)),)


def _without_summary(reading: Reading, blocks: tuple[Block, ...]) -> tuple[Block, ...]:
    """Blocks behind a notice or a "Key Points" list that opens a section."""
    while blocks and reading.text[blocks[0].start] == ">":
        blocks = blocks[1:]
    if blocks and reading.text[blocks[0].start : blocks[0].end] == "Key Points":
        blocks = blocks[1:]
        while blocks and blocks[0].kind == "item":
            blocks = blocks[1:]
    return blocks


def _before_boilerplate(text: str) -> str:
    """Text up to the end of the last sentence before "For more information ..."."""
    if boiler := _BOILERPLATE.search(text):
        before = text[: boiler.start()]
        ends = [found.end() for found in _SENTENCE_BORDER.finditer(before + " ")]
        text = before[: ends[-1]] if ends else ""
    return text.rstrip()


def _leading(reading: Reading, blocks: tuple[Block, ...]) -> list[Block]:
    """The first blocks that fit into the limit; a list is kept whole or left out with what announces it."""
    kept: list[Block] = []
    is_list_left_out = False
    for block in blocks:
        if reading.structure.words(blocks[0].start, block.end) > MAX_ANSWER_WORDS:
            if block.kind == "item":
                is_list_left_out = True
                while kept and kept[-1].kind == "item":
                    kept.pop()
            break
        kept.append(block)
    if is_list_left_out and kept and _ANNOUNCES.search(reading.text[kept[-1].start : kept[-1].end]):
        return kept[:-1]
    while kept and (reading.text[kept[-1].end - 1] in ":;,—" or kept[-1].kind == "table"):
        kept.pop()
    if not kept and blocks and blocks[0].kind == "paragraph":
        return _shortened(reading, blocks[0])
    return kept


def _shortened(reading: Reading, block: Block) -> list[Block]:
    """A paragraph over the limit, cut behind its last sentence that fits."""
    end = block.start
    for _, behind in split_sentences(reading.text, block.start, block.end):
        if reading.structure.words(block.start, behind) > _MAX_CUT_WORDS:
            break
        end = behind
    return [Block(block.kind, block.start, end)] if end > block.start else []


def _after_question(reading: Reading, start: int, end: int) -> int:
    """Start of an answer behind a question that its first sentence repeats."""
    found = re.match(
        r"(?:What|How|Who|Is|Are|Can|When|Why|Where|Does|Do)\b[^.?!\n]{5,150}\?\s+", reading.text[start:end]
    )
    return start + found.end() if found and found.end() < end - start else start


def _by_relation(reading: Reading, subject: Subject, section: Section, heading: str) -> Iterator[Evidence]:
    """Evidence of a section whose heading names a relation of the document's subject."""
    phrase = subject.phrase
    if phrase.kind == "command" and (parameter := re.fullmatch(r"-([A-Z]\w+)", section.heading)):
        yield from _parameter(reading, subject, section, parameter.group(1))
    keys = _relations(phrase, heading)
    spans = body_spans(reading, section) if keys else None
    if spans is None:
        return
    (start, end), lead = spans[0], ""
    body = reading.text[start:end]
    if found := _STANDS_FOR_SUBJECT.match(body):
        lead, spans = phrase.with_article(capital=True), ((start + found.end() + 1, end),)
    for key in keys:
        disease = key in _ABOUT_DISEASE
        if _holds(key, phrase, body) and not (disease and phrase.kind not in ("disease", "")):
            filled = phrase.of_kind("disease" if disease else "")
            yield Evidence(key, filled, spans, 0.9, lead, other=Phrase(heading))


def _relations(phrase: Phrase, heading: str) -> tuple[str, ...]:
    """Relation keys that a heading stands for."""
    if phrase.kind == "command":
        return _COMMAND_KEYS.get(heading, ())
    if keys := _HEADING_KEYS.get(heading):
        return keys
    return (f"noun:{noun_stem(heading)}",) if heading in _OWN_KEYS else ()


def _holds(key: str, phrase: Phrase, body: str) -> bool:
    """Whether a section really tells what its heading lets one expect, where that can be seen by its words."""
    if key == "catch":
        return _CONTAGIOUS.search(body[:300]) is not None and _LASTING.search(body[:300]) is None
    if key == "noun:stage" and _NO_STAGES.search(body[:300]):
        return False
    if key == "noun:symptom" and body.startswith(("The doctor", "Your doctor")):
        return False
    if phrase.kind == "command" and key in ("definition", "about", "work"):
        return phrase.text in body[:120]
    if key == "act:eat":
        return phrase.kind == "animal"
    if key == "rid":
        return _SHED.search(body) is not None and not (
            _LASTING.search(f"{phrase.text} {body}") or _NOT_SHED.search(phrase.text)
        )
    if key.endswith((":make", ":cook")):
        return _ALL_INGREDIENTS.search(body) is None
    if key in ("made", "noun:ingredient"):
        itself = rf"^[-*•] *(?:[\d./½¼¾]+ )?{re.escape(phrase.text)}\b"
        return re.search(itself, body, re.IGNORECASE | re.MULTILINE) is None
    if key == "how:begin":
        return _BEGINS.search(body[:250]) is not None
    return key != "happened_in" or phrase.kind == "place"


def _denies(stem: str, body: str) -> bool:
    """Whether a section says that there is nothing of what its heading names: "There is no staging system"."""
    return re.search(rf"\b(?:is|are) no\b[^.]*\b{stem[:-1]}", body) is not None


def _parameter(reading: Reading, subject: Subject, section: Section, name: str) -> Iterator[Evidence]:
    """What a parameter of a command does."""
    spans = body_spans(reading, section)
    if spans and name.lower() not in ("confirm", "whatif", "verbose", "debug"):
        phrase = Phrase(f"-{name} parameter of {subject.phrase.text}", "the")
        for key in ("noun:function", "noun:purpose", "used"):
            yield Evidence(key, phrase, spans, 0.8)


def _by_question(reading: Reading, section: Section, subject: Subject | None) -> Iterator[Evidence]:
    """Sections headed by a question, by a task ("To create a tab"), or by "N of X"."""
    heading = section.heading
    if task := _TASK.match(heading):
        spans = body_spans(reading, section)
        if spans:
            yield Evidence("task", Phrase(task.group(1), kind="task"), spans, 0.75)
        return
    if found := re.match(r"(?:The )?([A-Z][a-z]+) (?:of|for) (.{3,50})\Z", heading):
        phrase, stem = noun_phrase(found.group(2)), noun_stem(found.group(1))
        if phrase and phrase.article == "the" and phrase.text.islower() and " " not in phrase.text:
            return
        if not phrase or " in " in phrase.text or stem not in NOUN_KEYS:
            return
        if subject and phrase.text.islower() and not _shares_word(phrase, subject.phrase):
            return
        if (spans := body_spans(reading, section)) and not _denies(stem, reading.text[slice(*spans[0])]):
            yield Evidence(f"noun:{NOUN_KEYS[stem]}", reading.spelled(phrase), spans, 0.75)
        return
    if heading.endswith("?") and len(heading) < 100:
        yield from _question(reading, section, heading)


def _shares_word(phrase: Phrase, title: Phrase) -> bool:
    """Whether a heading's phrase is about the page's subject; "history of navigation" of a river is not."""
    return not set(phrase.key.split()).isdisjoint(title.key.split())


def _by_topic(reading: Reading, section: Section) -> Iterator[Evidence]:
    """A section of a book about the thing its heading names, if its opening names it again."""
    phrase = noun_phrase(section.heading) if 3 <= section.level <= 6 and "." not in section.heading else None
    spans = body_spans(reading, section) if phrase else None
    if phrase is None or spans is None or len(phrase.text.split()) > _MAX_TOPIC_WORDS:
        return
    opening = reading.text[spans[0][0] : spans[0][0] + _OPENING_CHARS]
    place = " ".join(opening.split()).casefold().find(phrase.text.casefold())
    if 0 <= place <= _OPENS_WITHIN and "`" not in opening:
        yield Evidence("about", reading.spelled(phrase), spans, 0.7)


def _question(reading: Reading, section: Section, heading: str) -> Iterator[Evidence]:
    """A heading that is a question: each of its noun phrases is tried as the slot."""
    words = heading.rstrip("?").split()
    for start in range(1, len(words)):
        for end in range(start + 1, min(len(words), start + 6) + 1):
            phrase = noun_phrase(" ".join(words[start:end]))
            if phrase is None or (phrase.article and start + 1 == end):
                continue
            frame = " ".join((*words[:start], "<fi>x</fi>", *words[end:])) + "?"
            asked = wanted(frame)
            if (
                asked
                and not asked.before
                and not asked.after
                and not asked.article
                and (spans := body_spans(reading, section))
            ):
                number = is_plural(phrase.text) if asked.plural is None else asked.plural
                spelled = reading.spelled(phrase)
                yield Evidence(asked.key, Phrase(spelled.text, phrase.article, number), spans, 0.85, past=asked.past)
