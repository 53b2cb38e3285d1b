"""A stand-in for a language model that really does the jobs of our prompts, by rule.

In: the body of a request. Out: reply text, vectors or flags. The same body always gets the same reply. It needs no
model, so the whole pipeline can be tried over real HTTP, to thousands of pairs; what it writes is well formed, not
wise.
"""

import base64
import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_STOP_WORDS = frozenset(
    """a about an and any are as at be best by can could did do does for from get good had has have how i if in is it
    know like make many me much my need no not of on one or please should some tell than that the their there they this
    to use want was we were what when where which who why will with would you your""".split()  # noqa: SIM905
)
_SPECIFIC = re.compile(r'(?P<quoted>"[^"<>]{1,80}")|(?P<name>[A-Z][\w-]*(?: [A-Z][\w-]*)*)|(?P<number>\d[\d.,]*\d|\d)')
_SENTENCE = re.compile(r"(?:\A|(?<=[.!?]\s)|(?<=\n))\w[^.!?\n<>{}]{38,500}[.!?](?=\s|\Z)")
_WORD = re.compile(r"\w[\w'-]*")
_SLOT = re.compile(r"<fi>(.*?)</fi>", re.DOTALL)
_SLOT_NAMES = {"quoted": "a quoted phrase", "name": "name of a person, place or thing", "number": "a number"}
_SCORES = "555" + "4" * 9 + "3" * 5 + "22" + "1"
"""Roughly how the published judge's scores are spread."""
_BENCHMARK_MARK = re.compile(r"Mark: \[\[0\.5\]\]|Option: \[\[A\]\]|Rating: \[\[6\]\]|<response_M>")
"""What tells the prompts of our benchmarks' judges apart."""
_EMBEDDING_DIMENSION = 64
_FLAGGED_WORDS = frozenset({"bomb", "suicide", "massacre"})


def echo(body: Mapping[str, Any]) -> str:
    """Reply to a chat request made with one of our prompts.

    Args:
        body: The request body; the job is told from its first user message: a JSON object with ``query``, with
            ``instruction_template`` and ``document`` (and a ``compatible_document_description``, for a verdict on the
            two), or with ``instruction`` and ``answer`` (graded, or looked through for the faults that the audit of
            pairs names before); the tags of Flow Judge; the headings of Prometheus;
            the examples in the prompts of benchmarks' judges; and anything else is a bare query.

    Example:
        >>> echo({"messages": [{"role": "user", "content": '{"instruction": "Why?", "answer": "So."}'}]})
        '{"feedback": "A rule, not a reader, gave this grade.", "score": 3}'
    """
    said = next((str(m.get("content", "")) for m in body.get("messages", []) if m.get("role") == "user"), "")
    try:
        job = json.loads(said)
    except ValueError:
        job = None
    if isinstance(job, dict) and "document" in job and "instruction_template" in job:
        template, document = str(job["instruction_template"]), str(job["document"])
        if "compatible_document_description" in job:
            return judge_match(template, f"{job['compatible_document_description']}", document)
        return fill_template(template, document)
    if isinstance(job, dict) and "answer" in job and "instruction" in job:
        if any("semantic_drift" in str(m.get("content", "")) for m in body["messages"]):
            return find_faults(said)
        return json.dumps({"feedback": "A rule, not a reader, gave this grade.", "score": _score(said)})
    if "<score>" in said and "<feedback>" in said:
        return f"<feedback>A rule, not a reader, gave this grade.</feedback>\n<score>{_score(said)}</score>"
    if (mark := _BENCHMARK_MARK.search(said)) is not None:
        return grade_for_benchmark(mark[0], said)
    if "[RESULT]" in said and "###Response to evaluate:" in said:
        return f"Feedback: A rule, not a reader, gave this grade. [RESULT] {_score(said)}"
    return make_template(str(job["query"]) if isinstance(job, dict) and "query" in job else said)


def slipping(rate: float, mended: float = 0.7) -> Callable[[Mapping[str, Any]], str]:
    """The same model as `echo`, but some of its drafts quote wrongly, ambiguously or too little.

    Args:
        rate: Share of the drafts with a slip, a third of them of each kind.
        mended: Share of those that come back right when the model is asked to mend them.
    """

    def reply(body: Mapping[str, Any]) -> str:
        right = echo(body)
        said = [str(m.get("content", "")) for m in body.get("messages", []) if m.get("role") == "user"]
        if '"instruction_template"' not in said[0] or right == "null":
            return right
        luck = _number(said[0]) % 10_000 / 10_000
        is_repair = len(said) > 1
        if luck >= rate or (is_repair and _number("mend", said[0]) % 10_000 < 10_000 * mended):
            return right
        return _slip(right, ("misquoted", "ambiguous", "wordy")[int(3 * luck / rate)])

    return reply


def _slip(right: str, kind: str) -> str:
    draft = json.loads(right)
    if kind == "misquoted":
        draft["answer"] = draft["answer"].replace("<excerpt>", "<excerpt>As is told in no such words anywhere, ", 1)
    elif kind == "ambiguous":
        draft["answer"] = "<excerpt>e</excerpt>"
    else:
        draft["answer"] = f"Here is what I should say of that, in many words of my own: {draft['answer']} And so it is."
    return json.dumps(draft, ensure_ascii=False)


def make_template(query: str) -> str:
    """A genericizer's reply: names, numbers and quotations become slots, or else the longest word."""
    template, start = "", 0
    for found in _SPECIFIC.finditer(query):
        if found[0].lower() in _STOP_WORDS or (found.lastgroup == "name" and found.start() == 0):
            continue
        template += f"{query[start : found.start()]}<fi>{_SLOT_NAMES[str(found.lastgroup)]}</fi>"
        start = found.end()
    template += query[start:]
    content = [word for word in _WORD.findall(query) if word.lower() not in _STOP_WORDS]
    if start == 0 and content:
        longest = max(content, key=len)
        template = query.replace(longest, "<fi>a subject</fi>", 1)
    if not content or not _WORD.search(_SLOT.sub("", template)):
        return "null"
    description = f"A text about {' '.join(content[:12])} that answers such a question."
    return json.dumps({"template": template, "compatible_document_description": description}, ensure_ascii=False)


def fill_template(template: str, document: str) -> str:
    """An instantiator's reply: the sentence nearest to the template is quoted, its words fill the slots."""
    wanted = set(_content_words(_SLOT.sub(" ", template)))
    sentences = [s for s in _SENTENCE.findall(document[:20_000]) if len(s.split()) >= 8 and document.count(s) == 1]
    if not sentences:
        return "null"
    sentence = max(sentences, key=lambda s: (len(wanted & set(_content_words(s))), _number(template, s)))
    names = _SLOT.findall(template)
    values = _values(sentence, len(names))
    remaining = iter(values)
    instruction = _SLOT.sub(lambda _: next(remaining), template)
    slots = [{"name": name, "value": value} for name, value in zip(names, values, strict=True)]
    reply = {"instruction": instruction, "answer": _quotation(sentence, document), "slots": slots}
    return json.dumps(reply, ensure_ascii=False)


def judge_match(template: str, description: str, document: str) -> str:
    """A compatibility judge's reply: yes, if a quotable sentence shares a word with template and description."""
    wanted = set(_content_words(_SLOT.sub(" ", template))) & set(_content_words(description))
    sentences = [s for s in _SENTENCE.findall(document[:20_000]) if len(s.split()) >= 8 and document.count(s) == 1]
    found = next((s for s in sentences if wanted & set(_content_words(s))), "")
    quote = " ".join(found.split()[:10])
    reply = {"reason": "A rule, not a reader, looked for a shared word.", "quote": quote, "compatible": bool(found)}
    return json.dumps(reply, ensure_ascii=False)


def grade_for_benchmark(mark: str, prompt: str) -> str:
    """A benchmark judge's reply: a grade, a letter or a choice that depends on nothing but the prompt's text."""
    luck = _number(prompt)
    if mark.startswith("Option"):
        options = re.findall(r"^([A-Z])\. ", prompt.partition("<options>")[2].partition("</options>")[0], re.MULTILINE)
        return f"A rule, not a reader, took one. Option: [[{options[luck % len(options)] if options else 'none'}]]"
    if mark.startswith("Mark"):
        return f"A rule, not a reader, gave this mark. Mark: [[{luck % 11 / 10}]]"
    if mark.startswith("Rating"):
        return f"A rule, not a reader, gave this rating. Rating: [[{1 + luck % 10}]]"
    return "mM"[luck % 2]


def find_faults(said: str) -> str:
    """A verdict on a row of an audit's sheet: every fifth pair has one fault."""
    names = ("factual_error", "hallucination", "semantic_drift", "unanswerable")
    luck = _number("faults", said)
    found = {name: luck % 20 == place for place, name in enumerate(names)}
    return json.dumps({"reason": "A rule, not a reader, found this.", **found})


def _content_words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text) if word.lower() not in _STOP_WORDS]


def _values(sentence: str, count: int) -> Sequence[str]:
    found = [match[0].strip('"') for match in _SPECIFIC.finditer(sentence) if match[0].lower() not in _STOP_WORDS]
    found += sorted(_content_words(sentence), key=len, reverse=True) or ["it"]
    return [found[number % len(found)] for number in range(count)]


def _quotation(sentence: str, document: str) -> str:
    """The sentence as an excerpt, shortened to its ends where they stand only once in the document."""
    words = list(re.finditer(r"\S+", sentence))
    first, last = sentence[: words[4].end()], sentence[words[-5].start() :]
    if len(words) >= 12 and document.count(first) == 1 and document.count(last) == 1:
        return f"<excerpt>{first}<...>{last}</excerpt>"
    return f"<excerpt>{sentence}</excerpt>"


def _number(*parts: str) -> int:
    return int.from_bytes(
        hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=8).digest(), "little"
    )


def _score(text: str) -> int:
    return int(_SCORES[_number(text) % len(_SCORES)])


def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Hashed bags of words, as unit vectors."""
    texts = body.get("input", "")
    data = []
    for index, text in enumerate([texts] if isinstance(texts, str) else texts):
        vector = [0.0] * _EMBEDDING_DIMENSION
        for word in re.findall(r"\w+", str(text).lower()) or [""]:
            number = int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "little")
            vector[number % _EMBEDDING_DIMENSION] += 1.0 if number >> 63 else -1.0
        length = math.sqrt(sum(value * value for value in vector)) or 1.0
        vector = [value / length for value in vector]
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        embedding = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    return {
        "object": "list",
        "model": body.get("model", ""),
        "data": data,
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


def moderations(body: dict[str, Any]) -> dict[str, Any]:
    """A text is flagged if it holds one of a few words."""
    texts = body.get("input", "")
    results = []
    for text in [texts] if isinstance(texts, str) else texts:
        flagged = not _FLAGGED_WORDS.isdisjoint(re.findall(r"\w+", str(text).lower()))
        results.append(
            {"flagged": flagged, "categories": {"violence": flagged}, "category_scores": {"violence": float(flagged)}}
        )
    return {"id": "modr-scripted", "model": body.get("model", ""), "results": results}
