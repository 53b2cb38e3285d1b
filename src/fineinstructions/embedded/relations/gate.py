"""Which templates a document may answer: evidence looked up in an inverted index of wanted relations.

In: a document. Out: row numbers of templates. The decision to question: the gate already asks whether the slot can be
filled with the right kind, number and article, so that what passes is seldom refused later.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.relations.clauses import clause_evidence
from fineinstructions.embedded.relations.fit import fit
from fineinstructions.embedded.relations.headings import heading_evidence, skipped_sections
from fineinstructions.embedded.relations.lead import lead_evidence
from fineinstructions.embedded.relations.questions import Wanted, wanted
from fineinstructions.embedded.relations.reading import DocumentLike, Evidence, Reading, grouped
from fineinstructions.embedded.relations.subject import subject_of
from fineinstructions.records import Template

_KEPT_DOCUMENTS = 64
_kept: OrderedDict[tuple[str, int], tuple[str, dict[str, list[Evidence]]]] = OrderedDict()


def evidence(document: DocumentLike) -> dict[str, list[Evidence]]:
    """Everything a document can answer, by relation key; the last few documents are remembered.

    Args:
        document: Anything with ``document_id``, ``text`` and ``title``.

    Returns:
        Evidence by relation key, the most reliable first.
    """
    key = (document.document_id, len(document.text))
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
    yield from heading_evidence(reading, subject)
    if reading.is_narrative:
        return
    if subject:
        yield from lead_evidence(reading, subject)
    yield from clause_evidence(reading, subject, skipped_sections(reading))


class RelationGate:
    """Cheap compatibility test between documents and templates.

    Args:
        templates: The template bank, in index order.
    """

    def __init__(self, templates: Sequence[Template]) -> None:
        self._rows: dict[str, dict[Wanted, list[int]]] = defaultdict(lambda: defaultdict(list))
        for row, template in enumerate(templates):
            if asked := wanted(template.template):
                self._rows[asked.key][asked].append(row)

    def allowed(self, document: DocumentLike) -> NDArray[np.int64]:
        """Row numbers of the templates that the document may answer, ascending."""
        rows: list[int] = []
        for key, found in evidence(document).items():
            for asked, numbers in self._rows.get(key, {}).items():
                if any(fit(asked, item) is not None for item in found):
                    rows.extend(numbers)
        return np.array(sorted(set(rows)), dtype=np.int64)
