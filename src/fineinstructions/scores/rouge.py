"""ROUGE-L of a written answer against the given one."""

import re

from rapidfuzz.distance import LCSseq

_WORD = re.compile(r"[^\W_]+")


def rouge_l(written: str, given: str) -> float:
    """F-measure of the longest common subsequence of words, case and punctuation aside.

    Returns:
        0 to 1; 0 where either text has no word.

    Source:
        Lin 2004, "ROUGE", with precision and recall weighted alike and without stemming.

    Example:
        >>> rouge_l("the cat was found", "A cat was lost"), rouge_l("", "x")
        (0.5, 0.0)
    """
    ours, theirs = _WORD.findall(written.lower()), _WORD.findall(given.lower())
    if not ours or not theirs:
        return 0.0
    return 2 * LCSseq.similarity(ours, theirs) / (len(ours) + len(theirs))
