"""Learning what the genericizer knows: word counts from documents and queries, and the frames that queries share.

Frames are found by hard expectation-maximisation: every query votes for its most believable reading, frames are counted
anew from the votes, relation words are valued by the frames they appear in, and so on for a few rounds. Deterministic:
no sampling, ties broken by text.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from fineinstructions.embedded.frame_grammar import FrameGrammar, content_words
from fineinstructions.embedded.frames import ParsedQuery, Reading, opens_question, parse, readings
from fineinstructions.embedded.genericizer import KnownFrame, distinct_kinds
from fineinstructions.embedded.kinds import alike, hinted_kinds, is_class, vote_kind
from fineinstructions.embedded.words import ARTICLES, WORD_CLASSES, Token, WordCounts, WordTable, tokenize

ROUNDS = 4
MIN_WORD_DOCUMENTS = 4
MIN_WORD_QUERIES = 2
MIN_VOTE_SCORE = 0.7
MIN_RELATION = 0.7
MAX_RELATION = 1.6
START_RELATION = 0.9
MIN_NAME_OCCURRENCES, MIN_NAME_SHARE = 3, 0.6
"""From how many and from which share of capitalised occurrences on neighbouring words count as a name (ours)."""
RATING_PRIOR = 0.62
RATING_PRIOR_WEIGHT = 1.5

_DETERMINERS = WORD_CLASSES["determiners"]
_MODALS = WORD_CLASSES["modals"]
_TITLES = WORD_CLASSES["titles"]
_LOCATIVES = WORD_CLASSES["locatives"]


class WordCounter:
    """Counts word forms and their neighbours; feed it documents and queries, then take the table.

    Args:
        queries: Texts whose neighbouring words are watched, to tell which of them are names: "star wars".
    """

    def __init__(self, queries: Iterable[str] = ()) -> None:
        self._watched = {name for text in queries for name, _ in neighbours(tokenize(text))}
        self._names: Counter[str] = Counter()
        self._no_names: Counter[str] = Counter()
        self._documents: Counter[str] = Counter()
        self._queries: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = {n: Counter() for n in WordCounts.__slots__}

    def add_document(self, text: str) -> None:
        """Count one document."""
        self._documents.update(self._scan(text))

    def add_query(self, text: str) -> None:
        """Count one query; its capitals count only if it starts with one, its lower case never."""
        tokens = tokenize(text)
        if text[:1].isupper():
            self._counts["capital"].update(t.text for t in tokens[1:] if text[t.start].isupper())
            self._watch(text, tokens)
        self._queries.update({t.text for t in tokens})

    def _watch(self, text: str, tokens: Sequence[Token]) -> None:
        """Count watched neighbours that are capitalised behind a lower-case word, and those that are not."""
        for name, (first, *_, last) in neighbours(tokens):
            if name not in self._watched:
                continue
            if not text[first.start].isupper():
                self._no_names[name] += 1
            elif text[last.start].isupper() and first.start >= 2 and text[first.start - 2].islower():
                self._names[name] += 1

    def _scan(self, text: str) -> set[str]:
        counts = self._counts
        seen: set[str] = set()
        previous, previous_end, running = "", -9, False
        tokens = tokenize(text)
        self._watch(text, tokens)
        for token in tokens:
            word, start = token.text, token.start
            seen.add(word)
            inside = start == previous_end + 1 and text[previous_end] == " "
            if text[start].islower():
                counts["lower"][word] += 1
            elif inside and text[start].isupper():
                # After a lower-case word only: headings and title lines capitalise everything.
                if running:
                    counts["capital"][word] += 1
                if previous in _TITLES:
                    counts["person"][word] += 1
                elif previous in _LOCATIVES and running:
                    counts["place"][word] += 1
            if inside:
                if previous in _DETERMINERS:
                    counts["noun"][word] += 1
                elif previous in _MODALS:
                    counts["verb"][word] += 1
                if word in {"said", "born", "wrote", "asked"} and previous:
                    counts["person"][previous] += 1
            if word == "." and previous in _TITLES:
                previous_end = token.end
                continue
            previous, previous_end, running = word, token.end, text[start].islower()
        return seen

    def table(self) -> WordTable:
        """Word counts of every word that is not rare."""
        words = {w for w, n in self._documents.items() if n >= MIN_WORD_DOCUMENTS and w[0].isalpha()}
        words |= {w for w, n in self._queries.items() if n >= MIN_WORD_QUERIES and w[0].isalpha()}
        fields = [n for n in WordCounts.__slots__ if n not in {"queries", "relation"}]
        found = {
            w: WordCounts(**{n: self._counts[n][w] for n in fields}, queries=self._queries[w], relation=START_RELATION)
            for w in sorted(words)
        }
        return WordTable(found | self._name_counts(WordTable(found)))

    def _name_counts(self, table: WordTable) -> dict[str, WordCounts]:
        """Counts of neighbours that are mostly a name, where each word alone is none: "star wars", "call of"."""
        found = {}
        for name, capital in sorted(self._names.items()):
            words, lower = name.split(), self._no_names[name]
            likely = capital >= MIN_NAME_OCCURRENCES and capital >= MIN_NAME_SHARE * (capital + lower)
            if likely and all(map(table.is_general, words)) and not (words[-1] == "of" and is_class(words[0])):
                found[name] = WordCounts(lower=lower, capital=capital, relation=START_RELATION)
        return found


def neighbours(tokens: Sequence[Token]) -> Iterator[tuple[str, tuple[Token, ...]]]:
    """Two words side by side, also with "of" or "'s" between them, and a word with the "of" behind it; no articles.

    "statue of" comes beside "statue of liberty" because a frame may keep half of a name: "where is statue of _". With a
    name come its tokens, so that first and last can be looked up in the text; "of" and "'s" have no capital to tell.

    Example:
        >>> [name for name, _ in neighbours(tokenize("the statue of liberty"))]
        ['statue of', 'statue of liberty']
    """
    kept = [token for token in tokens if token.text not in ARTICLES]
    for k in range(1, len(kept)):
        first, last = kept[k - 1], kept[k]
        if not last.text[0].isalpha():
            continue
        if first.text in {"of", "'s"} and k > 1:
            before = kept[k - 2]
            if first.text == "of":
                yield f"{before.text} of", (before, first, last)
            yield f"{before.text} {first.text} {last.text}", (before, first, last)
        elif last.text != "of" and first.text[0].isalpha():
            yield f"{first.text} {last.text}", (first, last)


def learn_frames(
    queries: Sequence[str], table: WordTable, ratings: Mapping[str, float]
) -> tuple[dict[str, KnownFrame], WordTable]:
    """Find the frames that at least two different queries share.

    Args:
        queries: Query texts.
        table: Word counts.
        ratings: Well-formedness (0 to 1) by query text, from people; may be empty.

    Returns:
        The frames, and the word table with the relation values that the frames gave.
    """
    grammar = FrameGrammar(table)
    parsed: list[ParsedQuery] = []
    options: list[list[Reading]] = []
    rated: list[float | None] = []
    for text in sorted(set(queries)):
        query = parse(text)
        found = [r for r in readings(query, table) if grammar.is_wellformed(r.frame)]
        if found:
            parsed.append(query)
            options.append(found)
            # People rated the wording as it was; a bare "population of _" says nothing about the question made of it.
            rated.append(ratings.get(text) if opens_question(tuple(t.text for t in tokenize(text))) else None)
    weight = {f: float(n) for f, n in _count_fillers(zip(parsed, options, strict=True)).items() if n > 1}
    blocked: set[str] = set()
    for _ in range(ROUNDS):
        votes = [_vote(q, found, grammar, weight) for q, found in zip(parsed, options, strict=True)]
        chosen = _count_fillers((q, [v]) for q, v in zip(parsed, votes, strict=True) if v)
        blocked |= {f for f in chosen if grammar.is_topical(f, chosen)}
        weight = {f: (chosen.get(f, 0) + n) / 2 for f, n in weight.items() if f not in blocked}
        table = _with_relations(table, {f: n for f, n in chosen.items() if n > 1})
        grammar = FrameGrammar(table)
        grammar.is_wellformed.cache_clear()
    known = _known(parsed, votes, rated, chosen, table)
    return known | {f: KnownFrame(0, 0.0, ()) for f in blocked if f not in known}, table


def _count_fillers(pairs: Iterable[tuple[ParsedQuery, Sequence[Reading]]]) -> dict[str, int]:
    fillers: defaultdict[str, set[str]] = defaultdict(set)
    for query, found in pairs:
        for reading in found:
            fillers[reading.frame].add(" | ".join(" ".join(query.words[a:b]) for a, b in reading.spans))
    return {frame: len(texts) for frame, texts in fillers.items()}


def _vote(
    query: ParsedQuery, found: Sequence[Reading], grammar: FrameGrammar, weight: Mapping[str, float]
) -> Reading | None:
    priced = [
        (grammar.score(r, query.words, int(weight[r.frame])), r.frame, r.spans, r)
        for r in found
        if weight.get(r.frame, 0.0) >= 2
    ]
    if not priced:
        return None
    score, _, _, reading = max(priced, key=lambda p: p[:3])
    return reading if score >= MIN_VOTE_SCORE else None


def _with_relations(table: WordTable, frames: Mapping[str, int]) -> WordTable:
    mass: Counter[str] = Counter()
    for frame, num_fillers in frames.items():
        for word in content_words(frame):
            mass[word] += min(num_fillers, 30)
    values = {w: min(MAX_RELATION, max(MIN_RELATION, math.log2(n + 1) / 4)) for w, n in mass.items()}
    return WordTable({w: replace(c, relation=values.get(w, MIN_RELATION)) for w, c in table.counts.items()})


def _known(
    parsed: Sequence[ParsedQuery],
    votes: Sequence[Reading | None],
    rated: Sequence[float | None],
    chosen: Mapping[str, int],
    table: WordTable,
) -> dict[str, KnownFrame]:
    members: defaultdict[str, list[int]] = defaultdict(list)
    for k, vote in enumerate(votes):
        if vote and chosen[vote.frame] > 1:
            members[vote.frame].append(k)
    known = {}
    for frame, rows in members.items():
        scores = [r for r in (rated[k] for k in rows) if r is not None]
        quality = (sum(scores) + RATING_PRIOR * RATING_PRIOR_WEIGHT) / (len(scores) + RATING_PRIOR_WEIGHT)
        num_slots = frame.split().count("_")
        kinds = list(hinted_kinds(frame, num_slots))
        for slot, kind in enumerate(kinds):
            if not kind:
                fillers = [_slot_words(parsed[k], votes[k], slot) for k in rows]
                kinds[slot] = vote_kind(fillers, table)
        known[frame] = KnownFrame(chosen[frame], round(quality, 4), distinct_kinds(alike(frame, kinds)))
    return known


def _slot_words(query: ParsedQuery, reading: Reading | None, slot: int) -> str:
    assert reading is not None
    start, end = reading.spans[slot]
    return " ".join(query.words[start:end])
