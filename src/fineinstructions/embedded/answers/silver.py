"""Questions about pages of every sort, with the answers that the rules of relations find: no person labelled them.

In: templates and documents. Out: `Example`s of the kind ``page``. They teach the models how questions of templates and
their answers look on recipes, manuals and encyclopedias; nine of ten are right, so what the models doubt is read as
doubt, not as an error. The decision to question: learning from one's own output finds no answer that the rules miss.
"""

from collections.abc import Iterable, Iterator, Sequence

from fineinstructions.embedded.answers.examples import Example
from fineinstructions.embedded.relations.fit import fit
from fineinstructions.embedded.relations.gate import RelationGate, evidence
from fineinstructions.embedded.relations.questions import wanted
from fineinstructions.records import Document, Template

MAX_PER_PAGE = 4
SOURCE = "rules"


def page_examples(templates: Sequence[Template], documents: Iterable[Document]) -> Iterator[Example]:
    """Filled templates with the evidence of each document, a few per document.

    Args:
        templates: A template bank.
        documents: Documents to be asked.
    """
    from fineinstructions.embedded.instantiator import filled

    gate = RelationGate(templates)
    for document in documents:
        found = 0
        for row in gate.allowed(document).tolist():
            asked = wanted(templates[row].template)
            if asked is None or found >= MAX_PER_PAGE:
                continue
            for item in evidence(document).get(asked.key, ()):
                if (words := fit(asked, item)) is not None:
                    question = filled(templates[row].template, words)
                    page = (document.text, document.title, item.spans, document.document_id)
                    yield Example(question, *page, "page", asked.key, source=SOURCE)
                    found += 1
                    break
