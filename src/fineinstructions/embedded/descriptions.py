"""Compatible document descriptions: which kind of document could fill a template and hold its answer.

In: a frame and the kinds of its slots. Out: one or two English sentences. They are what gets embedded, so the words
that such a document uses in its headings and sentences belong into them.
"""

from collections.abc import Sequence


def describe(frame: str, kinds: Sequence[str]) -> str:
    """Describe the documents that a template fits."""
    return f"A document about {' and '.join(kinds)}: {frame.replace('_', 'it')}."
