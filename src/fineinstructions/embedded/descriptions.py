"""Compatible document descriptions: which kind of document could fill a template and hold its answer.

In: a frame and the kinds of its slots. Out: English sentences. They are what gets embedded, so they name the domain,
the slots, and the words that such a document has in its headings and sentences; the template's own relation words stay
in.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from fineinstructions.embedded.words import FUNCTION_WORDS, read_word_lists, stem

_SUCH_AS = (
    "such as a disease, a gene, a person, a city, a company, a war, a season, an animal, a plant, a chemical, "
    "a machine, a software command, a military unit or a dish"
)
_TOPIC_PAGE = f"An article or page about any topic, {_SUCH_AS}"
_PAGE_OF_KIND = {
    "a disease": "A health page about a disease or medical condition",
    "a medicine or treatment": "A health page about a medicine or treatment",
    "a body part": "A health or biology page about a part of the body",
    "a person": "A biography of a person",
    "a character": "An article about a film, show or story and its characters",
    "a film or show": "An article about a film or television show",
    "a film, song or product": "An article about a film, album, song or product",
    "a song": "An article about a song, its singer and its band",
    "a book": "An article about a book or novel",
    "a painting": "An article about a painting",
    "a work": "An article about a book, film, song or other work",
    "a place": "An encyclopedia article about a place: a city, country, river or region",
    "a country or organisation": "An encyclopedia article about a country or an organisation",
    "an organisation": "An encyclopedia article about a company, school, club or other organisation",
    "a team or person": "An article about a sports team or player",
    "an event": "A history or sports article about an event such as a battle, election or championship",
    "a law or document": "A history or law article about an act, treaty, amendment or document",
    "a term": f"A page that explains a term or name, {_SUCH_AS}",
    "an abbreviation": "A reference page that explains an abbreviation",
    "a language": "An article about a language or a country",
    "an invention": "A history article about an invention",
    "a discovery": "A science article about a discovery",
    "a food or dish": "A recipe for a dish or an article about food",
    "something to make": "A recipe or a guide that shows how to make something",
    "a substance": "A chemistry or biology page about a substance",
    "an animal or plant": "A biology article about an animal or plant",
    "a command": "A technical reference page about a command, cmdlet or function",
    "a software tool": "A technical documentation page about software",
    "a device or machine": "A technical page about a device or machine",
    "an item": "A manual that shows how to handle a part or item",
    "a process": "A science textbook section about a process",
    "an idea or field": "A textbook section about an idea or field of knowledge",
    "a condition or event": "A health, science or history page about a condition or event",
    "do something": "A how-to guide, manual or technical page that shows how to do something",
    "a job": "A manual or article about a job and its duties",
    "a thing": f"A reference, science or technical page about a thing, {_SUCH_AS}",
    "a year": "A history article about a year",
    "a number": "A page with numbers and figures",
    "an amount": "A page with numbers, weights and measures",
}

_ASIDE = ("a year", "a number", "an amount", "do something")
"""Kinds that a page is not about, if it holds anything else: "where did _ move in _"."""

_TELLS = {
    "symptom": "lists the symptoms and signs",
    "cause": "explains the causes, reasons and genetic changes behind it",
    "treatment": "describes treatment, therapy, medicines and surgery",
    "diagnosis": "describes diagnosis, exams and tests",
    "prevention": "tells how to prevent or avoid it",
    "risk": "names risk factors and who is likely to get it",
    "outlook": "gives the outlook, prognosis and chance of recovery",
    "inheritance": "explains how it is inherited through genes",
    "frequency": "tells how common it is and how many people it affects",
    "complication": "names complications and problems",
    "research": "reports research, clinical trials and studies",
    "ingredient": "lists the ingredients",
    "make": "gives directions for how to make, cook or prepare it, step by step",
    "syntax": "shows the syntax and parameters",
    "command": "gives the synopsis and says what the command does",
    "example": "gives examples",
    "step": "lists the steps, instructions, procedure or process",
    "history": "tells the history, origins and background",
    "founding": "tells when and by whom it was founded, formed or established",
    "location": "says where it is located and describes the geography",
    "population": "gives the population, census and demographics",
    "climate": "describes the climate and weather",
    "economy": "describes the economy and industry",
    "education": "tells about education, school and university",
    "birth": "tells when and where the person was born and the early life",
    "death": "tells when, where and how the person died",
    "marriage": "tells about marriage, wife, husband, parents and children: personal life",
    "career": "tells about the career, profession and work",
    "team": "tells about the team, club, league, coach and players of the season",
    "event": "tells who won, with the results of the championship or competition",
    "election": "names the president, leader or government and the election",
    "war": "describes the war or battle, armies and soldiers",
    "law": "explains the law, act, rights or amendment",
    "cast": "names the cast: who played or starred as which character",
    "plot": "tells the plot, story and what happens",
    "release": "tells when it was released, published or first aired",
    "song": "names the singer, band, album and lyrics",
    "author": "names the author who wrote the book",
    "award": "lists awards, prizes and honours",
    "name": "says what it is called and what the name or term means",
    "definition": "gives a definition, description or overview of what it is",
    "type": "lists the types, kinds, stages and classification",
    "part": "describes the parts, structure and components",
    "function": "explains the function, purpose and use, and how it works",
    "effect": "explains the effects, consequences and impact",
    "benefit": "explains the benefits, advantages and importance",
    "difference": "explains the difference and compares the two",
    "feature": "describes the characteristics, features and properties",
    "responsibility": "lists the responsibilities, duties and operations",
    "discovery": "tells who discovered or invented it",
    "habitat": "describes the habitat, diet and behaviour of the species",
    "number": "gives the number, cost or amount",
    "discussion": "records a discussion or meeting with opinions and decisions",
}
_ASKS = {
    "when": "gives the date or year",
    "where": "names the place",
    "who": "names the person",
    "why": "explains the reason",
}
_BARE = {
    "who is _": ("birth", "career"),
    "who was _": ("birth", "career"),
    "where is _": ("location",),
    "where are _": ("location",),
    "where was _": ("location",),
}
_NOT_MEANT_IN = {
    "founding": re.compile(r"\bfound\b|\bforms? (?:of|are|is|do|does)\b|\bwhat form\b|_ form\b|\bcreates?\b"),
    "law": re.compile(r"\bact(?:ed|ing|or|ress)\b|\bright now\b"),
    "difference": re.compile(r"\bdifferent (?!from\b|about\b|between\b)|\btime difference\b"),
    "team": re.compile(
        r"\binstruments?\b|\bshow\b|\bepisodes?\b|\bseasons?\b|\b(?:music|guitar|part|role|you)\b.*\bplay"
        r"|^who (?:is |was |has )?play(?!.*\bfor\b)|^who does _ play in\b|\bteam\b.*\b(?:discuss|say|think)"
        r"|\bdiscussion\b|\b(?:kind|type) of\b|\b(?:films|movies)\b"
    ),
    "cast": re.compile(
        r"^(?!who\b|what (?:films|movies)\b).*\bplay|\bplay\w* (?:\w+ )?for\b"
        r"|\b(?:sports?|games|position|team|league)\b"
    ),
    "marriage": re.compile(r"\b(?:same|what|which) family\b|\bfamily (?:of|is|does|do)\b"),
    "author": re.compile(r"\bwritten (?:in|with|as)\b|\b_ written\Z"),
    "birth": re.compile(r"\bearly (?!life\b)|\b(?:real|this) life\b|\blife of\b"),
    "part": re.compile(
        r"\b(?:become|became|were|are|was) part of\b|\bpart did\b|^(?:what|which) part of\b"
        r"|(?:^when|\byear)\b.*\bmade\b"
    ),
    "release": re.compile(r"\bair filter\b|\brelease during\b"),
    "war": re.compile(r"\bstar wars\b"),
    "symptom": re.compile(r"\bsigned\b"),
    "effect": re.compile(r"\binto effect\b"),
    "discussion": re.compile(r"\bmeets?\b"),
    "event": re.compile(r"\bresults? of\b"),
    "command": re.compile(r"\bfunctions?\b"),
    "benefit": re.compile(r"\bimportant (?!_|for\b|to\b|about\b)"),
    "education": re.compile(r"\bschool colors\b"),
    "climate": re.compile(r"\bbody temperature\b"),
    "step": re.compile(r"\bhow many steps\b"),
    "location": re.compile(r"\b(?:take|takes|took) place\b|\bbest place\b"),
    "history": re.compile(r"\bcountry of origin\b"),
    "function": re.compile(r"\b(?:language|currency|money)\b|\b(?:film|movie) role\b|^where\b.*\bwork\b"),
}
"""What a frame says where a word of the relation means something else: found is not founded there."""
_RELATIONS_OF_STEM: dict[str, list[str]] = {}
for _name, _words in read_word_lists("relation_words.txt").items():
    for _word in _words:
        _RELATIONS_OF_STEM.setdefault(stem(_word), []).append(_name)
MAX_RELATIONS = 2


def relations_of(frame: str) -> tuple[str, ...]:
    """Relations that a frame asks for, in the order of their words, at most two.

    Example:
        >>> relations_of("what are symptoms of _")
        ('symptom',)
    """
    if frame in _BARE:
        return _BARE[frame]
    found: list[str] = []
    for word in frame.split():
        for name in _RELATIONS_OF_STEM.get(stem(word), ()) if word not in FUNCTION_WORDS else ():
            other_meaning = _NOT_MEANT_IN.get(name)
            if name not in found and not (other_meaning and other_meaning.search(frame)):
                found.append(name)
    if not found and frame.startswith(("how do you _", "how do you ")):
        found = ["step"]
    if not found and frame.startswith(("what is _", "what are _", "what was _", "what were _")):
        found = ["definition"]
    return tuple(found[:MAX_RELATIONS])


@lru_cache(maxsize=20_000)
def describe(frame: str, kinds: Sequence[str]) -> str:
    """Describe the documents that a template fits.

    Args:
        frame: The template's frame, ``_`` for a slot.
        kinds: What the slots hold, in order.

    Returns:
        One or two sentences.

    Example:
        >>> describe("what are symptoms of _", ("a disease",))
        'A health page about a disease or medical condition that lists the symptoms and signs.'
    """
    aside = _ASIDE if len(kinds) > 1 and not frame.startswith("how ") else ()
    about = next((_PAGE_OF_KIND[k] for k in kinds if k in _PAGE_OF_KIND and k not in aside), _TOPIC_PAGE)
    relations = relations_of(frame)
    tells = [_TELLS[name] for name in relations]
    asked = _ASKS.get(next((w for w in frame.split()[:3] if w in _ASKS), ""), "")
    if asked and len(tells) < MAX_RELATIONS:
        tells.append(asked)
    covered = {stem(word) for tell in tells for word in tell.replace(",", " ").split()}
    left = [w for w in frame.split() if w != "_" and w not in FUNCTION_WORDS and stem(w) not in covered]
    sentence = f"{about} that {' and '.join(tells)}." if tells else f"{about}."
    return f"{sentence} It speaks of: {', '.join(left)}." if left else sentence
