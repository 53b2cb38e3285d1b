"""Sections whose heading names a relation ("Treatment", "Directions", "History") or is a question itself.

In: a `Reading` and its subject. Out: `Evidence` with the section's body as the answer. The decision to question: a section
longer than the answer limit gives its first paragraphs only, and only if these end at a border of a paragraph or list.
"""

import re
from collections.abc import Iterator

from fineinstructions.embedded.document_text import Block, Section
from fineinstructions.embedded.relations.grammar import Phrase, is_plural, noun_phrase, noun_stem
from fineinstructions.embedded.relations.questions import NOUN_KEYS, wanted
from fineinstructions.embedded.relations.reading import MAX_ANSWER_WORDS, Evidence, Reading, Subject
from fineinstructions.embedded.relations.tables import groups, pattern

SKIPPED = pattern("skipped", re.IGNORECASE)
_HEADING_KEYS = {heading.replace("_", " "): keys for heading, keys in groups("heading_keys").items()}
_STANDS_FOR_SUBJECT = re.compile(
    r"Th(?:is|e) (?:condition|disorder|disease|syndrome|cancer|infection|cmdlet|command)(?= (?:is|was|has|can|may|occurs|affects|causes|results|gets)\b)"
)
_COMMAND_KEYS = {heading.replace("_", " "): keys for heading, keys in groups("command_heading_keys").items()}
_KIND_NEEDED = {"noun:symptom": "disease", "noun:risk": "disease", "noun:diagnosis": "disease", "noun:frequency": "disease",
                "noun:inheritance": "disease", "noun:treatment": "disease", "noun:outlook": "disease", "noun:complication": "disease",
                "noun:prevention": "disease", "noun:genetic-change": "disease", "noun:cause": "disease", "noun:step": "disease"}  # fmt: skip
_BOILERPLATE = pattern("boilerplate")
_DANGLING = pattern("section_dangling")
_BEGINS = pattern("begins")
_TASK = re.compile(r"(?:How )?[Tt]o ([a-z]+ .{4,60})\Z")


def heading_evidence(reading: Reading, subject: Subject | None) -> Iterator[Evidence]:
    """Evidence from the sections of a document."""
    seen: set[str] = set()
    skipped = skipped_sections(reading)
    for number, section in enumerate(reading.structure.sections):
        heading = section.heading.casefold().strip()
        if not section.blocks or number in skipped or not section.level:
            continue
        if subject and heading not in seen:
            yield from _by_relation(reading, subject, section, heading)
        yield from _by_question(reading, section)
        seen.add(heading)


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


def body_spans(reading: Reading, section: Section) -> tuple[tuple[int, int], ...] | None:
    """Span of a section's body that can stand as an answer, or nothing."""
    blocks = section.blocks
    while blocks and reading.text[blocks[0].start] == ">":
        blocks = blocks[1:]
    blocks = tuple(_leading(reading, blocks))
    if not blocks:
        return None
    start, end = blocks[0].start, blocks[-1].end
    start = _after_question(reading, start, end)
    text = reading.text[start:end]
    if boiler := _BOILERPLATE.search(text):
        before = text[: boiler.start()]
        ends = [m.end() for m in re.finditer(r"[.!?][)\"”]?(?=\s)|\n\s*\n", before + " ")]
        end = start + len(before[: ends[-1]].rstrip() if ends else "")
        text = reading.text[start:end]
    if not text or _DANGLING.match(text):
        return None
    links = len(re.findall(r"https?:|\[\[|More on:|See also", text))
    proper = sum(1 for block in blocks if block.kind == "item" and reading.structure.words(block.start, block.end) <= 4)
    if (
        len(text.split()) < 8
        or links > 1
        or text.rstrip()[-1:] in ":,;"
        or any(block.kind == "table" for block in blocks)
    ):
        return None
    if proper > 6 and not re.search(r"\d", text):
        return None
    return ((start, end),)


def _leading(reading: Reading, blocks: tuple[Block, ...]) -> list[Block]:
    """The first blocks of a section that fit into the limit; a list is kept whole or left out with what announces it."""
    kept: list[Block] = []
    for block in blocks:
        if reading.structure.words(blocks[0].start, block.end) > MAX_ANSWER_WORDS:
            if block.kind == "item":
                while kept and kept[-1].kind == "item":
                    kept.pop()
            break
        kept.append(block)
    while kept and (reading.text[kept[-1].end - 1] in ":;,—" or kept[-1].kind == "table"):
        kept.pop()
    if not kept and blocks and blocks[0].kind == "paragraph":
        return _shortened(reading, blocks[0])
    return kept


def _shortened(reading: Reading, block: Block) -> list[Block]:
    """A paragraph over the limit, cut behind its last sentence that fits."""
    end = block.start
    for sentence in reading.structure.sentences:
        if (
            sentence.start >= block.start
            and sentence.end <= block.end
            and reading.structure.words(block.start, sentence.end) <= 150
        ):
            end = max(end, sentence.end)
    return [Block(block.kind, block.start, end)] if end > block.start else []


def _after_question(reading: Reading, start: int, end: int) -> int:
    """Start of an answer behind a question that its first sentence repeats."""
    found = re.match(
        r"(?:What|How|Who|Is|Are|Can|When|Why|Where|Does|Do)\b[^.?!\n]{5,150}\?\s+", reading.text[start:end]
    )
    return start + found.end() if found and found.end() < end - start else start


def _by_relation(reading: Reading, subject: Subject, section: Section, heading: str) -> Iterator[Evidence]:
    keys = _HEADING_KEYS.get(heading, ())
    if subject.phrase.kind == "command":
        if parameter := re.fullmatch(r"-([A-Z]\w+)", section.heading):
            yield from _parameter(reading, subject, section, parameter.group(1))
        keys = _COMMAND_KEYS.get(heading, ())
    elif (
        not keys
        and re.fullmatch(r"[a-z]+(?: [a-z]+)?", heading)
        and subject.phrase.kind in ("place", "organisation", "work", "event")
    ):
        keys = [f"noun:{NOUN_KEYS.get(noun_stem(heading), noun_stem(heading))}".replace(" ", "-")]
    spans = body_spans(reading, section) if keys else None
    if spans is None:
        return
    phrase = subject.phrase
    body = reading.text[spans[0][0] : spans[0][1]]
    lead = ""
    if found := _STANDS_FOR_SUBJECT.match(body):
        lead, spans = phrase.with_article(capital=True), ((spans[0][0] + found.end(), spans[0][1]), *spans[1:])
    for key in keys:
        if key == "catch" and not re.search(r"infect|contact|spread|bacteria|virus|bite|contaminat", body):
            continue
        if key == "how:begin" and not _BEGINS.search(body[:250]):
            continue
        if key == "happened_in" and phrase.kind not in ("place", "organisation"):
            continue
        if key == "rid" and re.search(
            r"syndrome|dystrophy|cancer|palsy|trisomy|genetic|inherit|mutation", phrase.text + body, re.IGNORECASE
        ):
            continue
        needed = _KIND_NEEDED.get(key)
        if needed == "disease" and phrase.kind not in ("disease", ""):
            continue
        filled = phrase.of_kind(needed or "")
        yield Evidence(key, filled, spans, 0.9, lead, other=Phrase(heading))


def _parameter(reading: Reading, subject: Subject, section: Section, name: str) -> Iterator[Evidence]:
    """What a parameter of a command does."""
    spans = body_spans(reading, section)
    if spans and name.lower() not in ("confirm", "whatif", "verbose", "debug"):
        phrase = Phrase(f"-{name} parameter of {subject.phrase.text}", "the")
        for key in ("noun:function", "noun:purpose", "used"):
            yield Evidence(key, phrase, spans, 0.8)


def _by_question(reading: Reading, section: Section) -> Iterator[Evidence]:
    """Sections headed by a question, by a task ("To create a tab"), or by "N of X"."""
    heading = section.heading
    if task := _TASK.match(heading):
        spans = body_spans(reading, section)
        if spans:
            yield Evidence("task", Phrase(task.group(1), kind="task"), spans, 0.75)
        return
    if found := re.match(r"(?:The )?([A-Z][a-z]+) (?:of|for) (.{3,50})\Z", heading):
        phrase, stem = noun_phrase(found.group(2)), noun_stem(found.group(1))
        if phrase and stem in NOUN_KEYS and (spans := body_spans(reading, section)):
            yield Evidence(f"noun:{NOUN_KEYS[stem]}", reading.spelled(phrase), spans, 0.75)
        return
    if heading.endswith("?") and len(heading) < 100:
        yield from _question(reading, section, heading)


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
