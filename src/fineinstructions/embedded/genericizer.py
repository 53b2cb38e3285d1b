"""The embedded genericizer: query to template, by the frame that most other queries share.

In: queries. Out: one draft or rejection each. Every reading of a query (which words are the slots) is priced by how
many different fillers its frame is known with, which relation words it keeps and whether its slots look like noun
phrases; the best one wins. The known frames are counted from real queries by `build`; an unknown frame may win too, but
has to be believable by itself, and `merge` still drops it unless a second query agrees.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from fineinstructions.embedded.descriptions import describe
from fineinstructions.embedded.frame_grammar import FrameGrammar
from fineinstructions.embedded.frames import (
    MAX_QUERY_WORDS,
    ParsedQuery,
    Reading,
    opens_question,
    parse,
    readings,
    task_reading,
)
from fineinstructions.embedded.identity import HERE, code_digest
from fineinstructions.embedded.kinds import DEFAULT_KIND, alike, hinted_kinds
from fineinstructions.embedded.words import ARTICLES, FUNCTION_WORDS, IMPERATIVES, IRREGULAR_PASTS, PRONOUNS, WordTable
from fineinstructions.records import Query, Rejection, TemplateDraft, rejection

DATA_DIR = Path(__file__).with_name("data")
CODE = (
    *(HERE / f"{name}.py" for name in ("descriptions", "frame_grammar", "frames", "genericizer", "kinds", "words")),
    *sorted(HERE.glob("*.txt")),
)
_LACKS_ARTICLE = re.compile(
    rf"what (?:is|was) (?:(?!(?:{'|'.join(sorted(FUNCTION_WORDS | IRREGULAR_PASTS))})\b)[a-z]+(?<!ed) ){{1,3}}of _"
    r"(?: (?:in|for) _)?$"
)
"""A frame whose singular noun takes "the", which searchers leave out: "what is true color of _"."""
MAX_QUERY_CHARS = 400
"""What is read of a query; a longer one has too many words anyway."""
MIN_KNOWN_SCORE = 0.7
"""Least score of a reading whose frame is known (ours, set by reading samples)."""
MIN_UNKNOWN_SCORE = 1.4
"""Least score of a reading whose frame is not known (ours)."""
MIN_QUALITY = 0.45
"""Least well-formedness of a known frame, from people's ratings of its queries (0 to 1; ours)."""


@dataclass(frozen=True, slots=True)
class KnownFrame:
    """A frame that real queries share; one with no filler is blocked, because it holds somebody's topic."""

    num_fillers: int
    quality: float
    kinds: tuple[str, ...]


def load_frames(path: Path) -> dict[str, KnownFrame]:
    """Read the frames that `save_frames` wrote."""
    import pyarrow.parquet as pq

    rows = pq.read_table(path).to_pylist()
    return {r["frame"]: KnownFrame(r["num_fillers"], r["quality"], tuple(r["kinds"])) for r in rows}


def save_frames(frames: dict[str, KnownFrame], path: Path) -> None:
    """Write frames as Parquet, sorted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = sorted(frames)
    table = pa.table(
        {
            "frame": pa.array(names, pa.string()),
            "num_fillers": pa.array([frames[n].num_fillers for n in names], pa.int32()),
            "quality": pa.array([frames[n].quality for n in names], pa.float32()),
            "kinds": pa.array([list(frames[n].kinds) for n in names], pa.list_(pa.string())),
        }
    )
    pq.write_table(table, path, compression="zstd", compression_level=19)


class EmbeddedGenericizer:
    """Genericizer on count tables: no network, no randomness, some 5,000 queries a second.

    Args:
        data_dir: Folder with ``words.parquet`` and ``frames.parquet``.
    """

    def __init__(self, data_dir: Path = DATA_DIR) -> None:
        self._table = WordTable.load(data_dir / "words.parquet")
        frames = load_frames(data_dir / "frames.parquet")
        self._frames = {f: known for f, known in frames.items() if known.num_fillers}
        self._num_fillers = {f: known.num_fillers for f, known in self._frames.items()}
        self._blocked = frames.keys() - self._frames.keys()
        self._grammar = FrameGrammar(self._table)
        digest = code_digest(*CODE, data_dir / "words.parquet", data_dir / "frames.parquet")
        self.model = json.dumps({"name": "embedded-genericizer", "digest": digest}, sort_keys=True)

    def genericize(self, queries: Iterable[Query]) -> Iterator[TemplateDraft | Rejection]:
        """One draft or rejection per query, in order."""
        for query in queries:
            yield self._one(query)

    def _one(self, query: Query) -> TemplateDraft | Rejection:
        parsed = parse(query.text[:MAX_QUERY_CHARS])
        if not opens_question(parsed.words):
            return rejection("genericize", "not_a_question", query.query_id, query)
        if len(parsed.words) > MAX_QUERY_WORDS:
            return rejection("genericize", "too_long", query.query_id, query, float(len(parsed.words)))
        candidates = [r for r in readings(parsed, self._table) if r.frame not in self._blocked]
        if not candidates:
            return rejection("genericize", "no_slot", query.query_id, query)
        reading = self._best_known(candidates, parsed) or task_reading(parsed)
        if reading is None:
            reading, best = self._best_unknown(candidates, parsed)
            if reading is None:
                reason = "no_frame" if best < MIN_UNKNOWN_SCORE else "ill_formed"
                reason = reason if PRONOUNS.isdisjoint(parsed.words) else "pronoun"
                return rejection("genericize", reason, query.query_id, query, best)
        known = self._frames.get(reading.frame)
        if known and known.quality < MIN_QUALITY:
            return rejection("genericize", "ill_formed", query.query_id, query, known.quality)
        return self._draft(query, parsed, reading, known)

    def _priced(
        self, candidates: Iterable[Reading], parsed: ParsedQuery, min_score: float
    ) -> list[tuple[float, Reading]]:
        """Readings with their scores, the most believable first; ties go by text.

        The best one is there, and so is every one with a score of at least `min_score`. What is left out could not
        have become either: its slots would only have lowered its worth, so they are not priced.
        """
        worth = [(self._grammar.worth(r, self._fillers(r)), r) for r in candidates]
        priced: list[tuple[float, Reading]] = []
        best = -math.inf
        for value, reading in sorted(worth, key=itemgetter(0), reverse=True):
            if value < min_score and value < best:
                break
            score = value - self._grammar.filler_cost(parsed.words, reading.spans)
            priced.append((score, reading))
            best = max(best, score)
        return sorted(priced, key=lambda p: (p[0], p[1].frame, p[1].spans), reverse=True)

    def _best_known(self, candidates: Iterable[Reading], parsed: ParsedQuery) -> Reading | None:
        priced = self._priced((r for r in candidates if r.frame in self._frames), parsed, MIN_KNOWN_SCORE)
        return priced[0][1] if priced and priced[0][0] >= MIN_KNOWN_SCORE else None

    def _best_unknown(self, candidates: Iterable[Reading], parsed: ParsedQuery) -> tuple[Reading | None, float]:
        """The most believable reading that is good English, and the best score of all, good English or not."""
        priced = self._priced(candidates, parsed, MIN_UNKNOWN_SCORE)
        for score, reading in priced:
            if score < MIN_UNKNOWN_SCORE:
                break
            if self._grammar.is_wellformed(reading.frame) and not self._grammar.is_topical(
                reading.frame, self._num_fillers
            ):
                return reading, score
        return None, priced[0][0]

    def _fillers(self, reading: Reading) -> int:
        known = self._frames.get(reading.frame)
        return known.num_fillers if known else 1

    def _draft(self, query: Query, parsed: ParsedQuery, reading: Reading, known: KnownFrame | None) -> TemplateDraft:
        kinds = known.kinds if known else unknown_kinds(reading)
        fillers = tuple(filler_text(parsed, span) for span in reading.spans)
        return TemplateDraft(
            query_id=query.query_id,
            template=surface(parsed, reading, kinds),
            compatible_document_description=describe(reading.frame, kinds),
            fillers=fillers,
            source=query.source,
            licence=query.licence,
        )


def unknown_kinds(reading: Reading) -> tuple[str, ...]:
    """Kinds that the frame's words tell; one filler alone, as in "how big does a newfoundland get", misleads."""
    kinds = [kind or DEFAULT_KIND for kind in hinted_kinds(reading.frame, len(reading.spans))]
    return distinct_kinds(alike(reading.frame, kinds))


def distinct_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """Kinds of one template, told apart: a second "a person" becomes "another person".

    Example:
        >>> distinct_kinds(["a person", "a person"])
        ('a person', 'another person')
    """
    found: list[str] = []
    for kind in kinds:
        bare = kind.split(" ", 1)[1] if kind.split(" ", 1)[0] in ARTICLES and " " in kind else kind
        found.append(f"another {bare}" if kind in found else kind)
    return tuple(found)


def filler_text(parsed: ParsedQuery, span: tuple[int, int]) -> str:
    """The query's own words in a slot, with their article, as they were written."""
    return parsed.text[parsed.starts[span[0]] : parsed.ends[span[1] - 1]]


def surface(parsed: ParsedQuery, reading: Reading, kinds: Sequence[str]) -> str:
    """The template: the frame's words with their articles in sentence case, and a slot for every span."""
    opening = {start: kind for (start, _), kind in zip(reading.spans, kinds, strict=True)}
    inside = {k for start, end in reading.spans for k in range(start + 1, end)}
    needs_article = _LACKS_ARTICLE.match(reading.frame) is not None
    parts: list[str] = []
    for k, word in enumerate(parsed.words):
        if k in inside:
            continue
        if k in opening:
            parts.append(f" <fi>{opening[k]}</fi>")
            continue
        article = parsed.articles[k] or ("the" if k == 2 and needs_article else "")
        article = f" {article}" if article else ""
        written = "I" if word == "i" else word
        parts.append(article + (written if word in {"'s", ","} else f" {written}"))
    text = "".join(parts).strip()
    return text[0].upper() + text[1:] + ("." if parsed.words[0] in IMPERATIVES else "?")
