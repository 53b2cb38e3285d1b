"""An answer with its excerpts written out, back to the short-hand that an instantiator generates.

In: a pair and its document. Out: the answer with ``<excerpt>first words<...>last words</excerpt>``, or why there is
none. The decision a reader would question: the teacher's own tags are not used. Its ends may have been too short, or
have differed from the document and been found all the same; a student learns ends that are exact and stand only once.
"""

from fineinstructions.embedded.instantiator import excerpt
from fineinstructions.records import Pair


def shorthand(pair: Pair, text: str, window: tuple[int, int], whole_words: int) -> tuple[str, str]:
    """Write a pair's answer in excerpt short-hand.

    Args:
        pair: The pair, with the offsets of its excerpts.
        text: Its document.
        window: The part of the document that the student is shown.
        whole_words: An excerpt of at most so many words is written out.

    Returns:
        The answer and an empty reason; or an empty answer and the reason: ``outside_window`` where an excerpt is not in
        the part that is shown, ``not_unique`` where its words stand in several places.
    """
    answer, reached = "", 0
    for e in sorted(pair.excerpts, key=lambda e: e.answer_start):
        if e.document_start < window[0] or e.document_end > window[1]:
            return "", "outside_window"
        tagged = excerpt(text, e.document_start, e.document_end, whole_words)
        if not tagged:
            return "", "not_unique"
        answer += pair.answer[reached : e.answer_start] + tagged
        reached = e.answer_end
    return answer + pair.answer[reached:], ""
