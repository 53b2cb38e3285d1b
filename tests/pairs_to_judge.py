"""One draft with its template and document, for tests of judges."""

from fineinstructions.records import Document, Excerpt, ExpandedDraft, Slot, Template

DOCUMENT = Document("d-1", "Salt comes from rock.", "Seas", "http://x", "web", "CC-BY", '{"a": 1}')
TEMPLATE = Template("t-1", "Why is <fi>x</fi> salty?", "A text.", 1, ("q-1", "q-2"), "forum", "CC0; MIT")
DRAFT = ExpandedDraft(
    "d-1",
    "t-1",
    3,
    0.75,
    "Why is the sea salty?",
    "Salt comes from rock.",
    (Slot("x", "the sea"),),
    (Excerpt(0, 21, 0, 21),),
    1.0,
    0.9,
    '{"name":"filler"}',
)
