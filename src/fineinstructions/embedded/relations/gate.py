"""Which templates a document may answer: evidence looked up in an inverted index of wanted relations.

In: a document. Out: row numbers of templates. The decision to question: the gate already asks whether the slot can be
filled with the right kind, number and article, so that what passes is seldom refused later.
"""

import hashlib
import math
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.identity import RELATIONS, code_digest
from fineinstructions.embedded.relations.abbreviations import written_out
from fineinstructions.embedded.relations.clauses import clause_evidence
from fineinstructions.embedded.relations.facts import cast_evidence
from fineinstructions.embedded.relations.fit import fit
from fineinstructions.embedded.relations.general import answers_in_general
from fineinstructions.embedded.relations.headings import heading_evidence, skipped_sections
from fineinstructions.embedded.relations.lead import lead_evidence
from fineinstructions.embedded.relations.questions import Wanted, wanted
from fineinstructions.embedded.relations.reading import DocumentLike, Evidence, Reading, grouped
from fineinstructions.embedded.relations.subject import subject_of
from fineinstructions.records import Template

FOCUS_GAIN = 0.1
"""What evidence inside the part of a document that was matched gains in reliability over all other (ours)."""
_KEPT_DOCUMENTS = 64
_kept: OrderedDict[tuple[str, str], tuple[str, dict[str, list[Evidence]]]] = OrderedDict()


def evidence(document: DocumentLike) -> dict[str, list[Evidence]]:
    """Everything a document can answer, by relation key; the last few documents are remembered.

    Args:
        document: Anything with ``document_id``, ``text`` and ``title``.

    Returns:
        Evidence by relation key, the most reliable first.
    """
    key = (document.document_id, document.title)
    kept = _kept.get(key)
    if kept is None or kept[0] != document.text:
        kept = (document.text, grouped(_collect(document.text, document.title)))
        _kept[key] = kept
        while len(_kept) > _KEPT_DOCUMENTS:
            _kept.popitem(last=False)
    return kept[1]


def _collect(text: str, title: str) -> Iterator[Evidence]:
    reading = Reading(text, title)
    subject = subject_of(reading)
    yield from _written_out(reading, heading_evidence(reading, subject))
    if reading.is_narrative:
        return
    if subject:
        yield from lead_evidence(reading, subject)
        yield from cast_evidence(reading, subject)
    told = clause_evidence(reading, subject, skipped_sections(reading))
    yield from _written_out(reading, (item for item in told if answers_in_general(reading, subject, item)))


def _written_out(reading: Reading, found: Iterable[Evidence]) -> Iterator[Evidence]:
    """Evidence without abbreviations that only the document knows."""
    for item in found:
        if plain := written_out(reading, item):
            yield plain


class RelationGate:
    """Cheap compatibility test between documents and templates.

    Of all templates that ask a document for the same relation, one is allowed: the others are wordings of one question,
    and the document has one answer to it. Which one is drawn per document, weighted by how many queries used it.

    Args:
        templates: The template bank, in index order.
        seed: Seed of the run.
        rows: Row numbers of the templates in the index, where they do not simply count from 0.
    """

    digest = code_digest(*RELATIONS)
    """What decides, beside the templates and the seed, which templates a document may answer."""
    min_cosine = -0.15
    """Measured (docs/LOG.md, 2026-11-23 and -28): of gated pairs, readers accept as many below 0 as above.
    All but one in a hundred lie above -0.14."""

    def __init__(self, templates: Sequence[Template], seed: int = 0, rows: NDArray[np.int64] | None = None) -> None:
        self._row_numbers = np.arange(len(templates)) if rows is None else rows
        self._seed = seed
        self._rows: dict[str, dict[Wanted, list[int]]] = defaultdict(lambda: defaultdict(list))
        self._ids = [template.template_id for template in templates]
        self._num_queries = [max(1, len(template.query_ids)) for template in templates]
        self._last: tuple[dict[str, list[Evidence]], dict[int, list[int]]] = ({}, {})
        for row, template in enumerate(templates):
            if asked := wanted(template.template):
                self._rows[asked.key][asked].append(row)

    def allowed(self, document: DocumentLike, span: tuple[int, int] | None = None) -> NDArray[np.int64]:
        """Row numbers of the templates that the document may answer, ascending; one per relation.

        Args:
            document: The document.
            span: Only templates whose answer the embedded instantiator would take from these characters, if it were
                pointed at them; ``None`` for the whole document.
        """
        drawn = self._drawn(document)
        rows = sorted(
            row for row, places in drawn.items() if span is None or any(span[0] <= p < span[1] for p in places)
        )
        return self._row_numbers[np.array(rows, dtype=np.int64)]

    def _drawn(self, document: DocumentLike) -> dict[int, list[int]]:
        """The template of each relation, with the places of the answers that it may get; of the last document kept."""
        found_here = evidence(document)
        if self._last[0] is not found_here:
            drawn: dict[int, list[int]] = {}
            tasks: list[list[int]] = []
            for key, found in found_here.items():
                if not (choice := self._choice(key, found, document.document_id)):
                    continue
                row, places = choice
                if key.startswith("task"):
                    if places in tasks:
                        continue  # "How do you <do something>?" and "How do you identify <a thing>?" are one here
                    tasks.append(places)
                drawn[row] = places
            self._last = (found_here, drawn)
        return self._last[1]

    def _choice(self, key: str, found: Sequence[Evidence], document_id: str) -> tuple[int, list[int]] | None:
        """One of the templates of a relation that some evidence fits, with the places of its answers."""
        fitting = {
            row: places
            for asked, rows in self._rows.get(key, {}).items()
            if (places := _places(asked, found))
            for row in rows
        }
        return max(fitting.items(), key=lambda item: self._luck(item[0], document_id), default=None)

    def _luck(self, row: int, document_id: str) -> tuple[float, int]:
        """Weight plus Gumbel noise that depends on seed, document and template alone: drawing by weight."""
        text = f"{self._seed}\0gate\0{document_id}\0{self._ids[row]}"
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        uniform = (int.from_bytes(digest, "little") + 0.5) / 2**64
        return 0.5 * math.log(self._num_queries[row]) - math.log(-math.log(uniform)), -row


def _places(asked: Wanted, found: Sequence[Evidence]) -> list[int]:
    """Middles of the answers that fit a template and are nearly as reliable as the best of them."""
    fitting = [item for item in found if fit(asked, item) is not None]
    best = max((item.reliability for item in fitting), default=0.0)
    return [item.middle for item in fitting if item.reliability > best - FOCUS_GAIN]
