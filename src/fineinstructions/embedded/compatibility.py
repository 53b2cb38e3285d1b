"""The embedded compatibility judge: a document can answer a template if the relation it asks for is found in it.

In: requests (match, template, document, focus). Out: verdicts. The decision to question: it knows only the relations of
the embedded tier, so it says "no" to every template that asks for anything else; what it calls compatible is right more
often than what it calls incompatible.
"""

import json
from collections.abc import Iterable, Iterator

from fineinstructions.embedded.identity import HERE, RELATIONS, code_digest
from fineinstructions.embedded.instantiator import RequestLike
from fineinstructions.embedded.relations.fit import fit
from fineinstructions.embedded.relations.gate import evidence
from fineinstructions.embedded.relations.questions import wanted
from fineinstructions.embedded.relations.reading import Evidence
from fineinstructions.records import Compatibility, Document, Template

CODE = (HERE / "compatibility.py", HERE / "instantiator.py", *RELATIONS)
"""Files that decide the verdicts."""


class EmbeddedCompatibilityJudge:
    """Compatibility judge of the embedded tier; deterministic, no state between requests."""

    def __init__(self) -> None:
        self.model = json.dumps({"name": "embedded-compatibility", "digest": code_digest(*CODE)}, sort_keys=True)

    def judge(self, requests: Iterable[RequestLike]) -> Iterator[Compatibility]:
        """One verdict per request, in order."""
        for request in requests:
            reason, found = _verdict(request.template, request.document)
            start, end = found.spans[0] if found else (-1, -1)
            yield Compatibility(
                document_id=request.match.document_id,
                template_id=request.match.template_id,
                chunk=request.match.chunk,
                cosine=request.match.cosine,
                compatible=found is not None,
                reason=reason,
                quote_start=start,
                quote_end=end,
                model=self.model,
            )


def _verdict(template: Template, document: Document) -> tuple[str, Evidence | None]:
    """Why, and the most reliable evidence; ``None`` for "no"."""
    asked = wanted(template.template)
    if asked is None:
        return "The template asks for no relation that the rules know.", None
    fitting = [item for item in evidence(document).get(asked.key, ()) if fit(asked, item) is not None]
    if not fitting:
        return f"The document holds no relation {asked.key!r} that fits the slots.", None
    best = max(fitting, key=lambda item: (item.reliability, -item.start))
    return f"The document holds the relation {asked.key!r}.", best
