"""What stands behind one pair or rejection, found without reading the run: document, template, queries.

In: a run and ids. Out: records. Pairs and rejections lie in plan order, so a document's unit is near the place that its
row's share of the table suggests; units are asked outward from there.
"""

import threading
from collections.abc import Iterator
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from fineinstructions.records import Document, Query, Template, from_table
from fineinstructions.review.rows import Rows
from fineinstructions.review.samples import parts
from fineinstructions.runs import RunFolder, UnitSpec
from fineinstructions.runs.verify import DocumentReader

MAX_ASKED_UNITS = 4000
"""Units that are asked for a document before it is given up."""
MAX_QUERIES = 20
_KEPT_UNITS = 4


class Lookup:
    """Finds what stands behind rows of a run.

    Args:
        run: The run.
        read_unit: Gives the documents of a unit.
    """

    def __init__(self, run: RunFolder, read_unit: DocumentReader) -> None:
        self._run, self._read_unit = run, read_unit
        self._plan = run.planned("matches") or run.planned("candidates") or ()
        self._templates = Rows(parts(run.root, "templates")) if run.published("templates") else None
        self._reading = threading.Lock()
        self._documents = lru_cache(maxsize=_KEPT_UNITS)(self._documents_of)
        self.template = lru_cache(maxsize=1024)(self._template)
        self.queries = lru_cache(maxsize=256)(self._queries)

    def document(self, document_id: str, share: float) -> Document | None:
        """A document by its id.

        Args:
            document_id: Its id.
            share: Where in the plan it probably is, 0 to 1.

        Returns:
            The document; ``None`` where it is no longer in the input.
        """
        with self._reading:
            for ordinal in _outward(len(self._plan), share, MAX_ASKED_UNITS):
                spec = self._plan[ordinal]
                if self._may_hold(spec, document_id):
                    found = self._documents(ordinal).get(document_id)
                    if found:
                        return found
        return None

    def _may_hold(self, spec: UnitSpec, document_id: str) -> bool:
        """Whether a unit may hold a document; what it has committed says so where it is quicker to read."""
        if self._run.planned("matches") is None or self._run.manifest("matches", spec) is None:
            return True
        tables = self._run.unit_groups("matches", spec, "match", ["document_id"])
        if any(pc.index(table.column(0), document_id).as_py() >= 0 for table in tables):
            return True
        return any(r.record_id == document_id for r in self._run.unit_rejections("matches", spec))

    def _documents_of(self, ordinal: int) -> dict[str, Document]:
        return {document.document_id: document for document in self._read_unit(self._plan[ordinal])}

    def _template(self, template_id: str) -> Template | None:
        place = self._templates.find("template_id", template_id) if self._templates else None
        if place is None or self._templates is None:
            return None
        return next(from_table(_as_table(self._templates, place), Template))

    def _queries(self, query_ids: tuple[str, ...]) -> tuple[Query, ...]:
        """The first queries behind a template; none where it came from a bank."""
        if not any(phase.name == "queries" for phase in self._run.phases) or self._run.planned("queries") is None:
            return ()
        wanted = pa.array(query_ids[:MAX_QUERIES])
        found: list[Query] = []
        for spec in self._run.planned("queries") or ():
            for table in self._run.unit_groups("queries", spec, "query"):
                found += from_table(table.filter(pc.is_in(table["query_id"], wanted)), Query)
            if len(found) == len(wanted):
                break
        return tuple(found)


def _as_table(rows: Rows, place: int) -> pa.Table:
    return pa.Table.from_pylist(rows.take([place]))


def _outward(number: int, share: float, most: int) -> Iterator[int]:
    """Numbers from a share of the way to both ends.

    Example:
        >>> list(_outward(5, 0.5, 10))
        [2, 3, 1, 4, 0]
    """
    middle = min(max(0, int(share * number)), number - 1) if number else 0
    given = 0
    for distance in range(number):
        for place in dict.fromkeys((middle + distance, middle - distance)):
            if 0 <= place < number and given < most:
                given += 1
                yield place
