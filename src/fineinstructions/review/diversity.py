"""How varied the pairs of a run are: templates against documents, repetition, wording, where answers stand.

In: codes of all pairs, and texts of a sample. Out: plain figures. The paper's own are 16,891 x^0.24 distinct templates
for x documents, none above 0.09 % of the pairs, most excerpts between 19 % and 71 % of their document, and a
correlation of 0.99 of chunk and place (arXiv:2601.22146, sections 3.2 and 6.1).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.encoder import EmbeddedEncoder
from fineinstructions.filters import NearDuplicates
from fineinstructions.review.rows import Rows
from fineinstructions.review.wording import first_word, opening
from fineinstructions.statistics import pearson, power_fit

PAPER_FACTOR, PAPER_EXPONENT, PAPER_TOP_SHARE = 16_891, 0.24, 0.0009
MAX_NEAR_TEXTS = 50_000
MAX_VECTORS = 2_000
MAX_BLEU_TEXTS = 500
NUM_OPENINGS = 15
_NUM_POINTS = 40


@dataclass(frozen=True)
class Growth:
    """Distinct templates after so many documents, in the order of the plan."""

    documents: list[int]
    templates: list[int]
    factor: float
    exponent: float
    r_squared: float
    top_share: float
    """Share of the pairs that have the most frequent template."""
    top_template: str


def growth(rows: Rows) -> Growth:
    """How the number of templates grows with documents that have pairs."""
    templates, documents = rows.codes("template_id"), rows.codes("document_id")
    if not len(rows):
        return Growth([], [], float("nan"), float("nan"), float("nan"), 0.0, "")
    first_template = np.sort(np.unique(templates.numbers, return_index=True)[1])
    first_document = np.sort(np.unique(documents.numbers, return_index=True)[1])
    last_rows = np.append(first_document[1:], len(rows)) - 1  # last pair of every document
    steps = np.unique(np.geomspace(1, len(last_rows), _NUM_POINTS).round().astype(np.int64))
    found = np.searchsorted(first_template, last_rows[steps - 1], side="right")
    x, y = steps.tolist(), found.tolist()
    counts = np.bincount(templates.numbers)
    top = int(counts.argmax())
    return Growth(x, y, *power_fit(x, y), float(counts[top] / len(rows)), templates.names[top])


def near_duplicate_share(texts: Sequence[str]) -> float:
    """Share of texts that say what an earlier one of them says."""
    seen = NearDuplicates()
    hits = sum(seen.find(text, str(number)) is not None for number, text in enumerate(texts[:MAX_NEAR_TEXTS]))
    return hits / len(texts[:MAX_NEAR_TEXTS]) if texts else 0.0


def spread(texts: Sequence[str]) -> float:
    """Mean cosine distance of two texts, by the embedded encoder: 0 for one meaning, about 1 for unrelated ones."""
    vectors = EmbeddedEncoder().encode_texts(list(texts[:MAX_VECTORS])).astype(np.float64)
    number = len(vectors)
    if number < 2:
        return 0.0
    total = vectors.sum(axis=0)
    return float(1 - (total @ total - np.square(vectors).sum()) / (number * (number - 1)))


def self_bleu(texts: Sequence[str], order: int = 4) -> float:
    """Mean BLEU of each text against all others together: 1 where all say the same, 0 where no two words recur.

    Source:
        Zhu et al. 2018, "Texygen"; counts clipped at the largest of any other text, missing n-grams smoothed by one
        half, no length penalty.
    """
    tokens = [text.lower().split() for text in texts[:MAX_BLEU_TEXTS]]
    tokens = [words for words in tokens if words]
    if len(tokens) < 2:
        return 0.0
    logs = np.zeros(len(tokens))
    sizes = np.zeros(len(tokens))
    for size in range(1, order + 1):
        grams = [Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1)) for words in tokens]
        best: dict[tuple[str, ...], list[int]] = {}
        for counts in grams:
            for gram, count in counts.items():
                best[gram] = sorted([*best.get(gram, []), count])[-2:]
        for number, counts in enumerate(grams):
            if counts:
                hits = sum(min(count, _best_of_others(best[gram], count)) for gram, count in counts.items())
                logs[number] += np.log(max(hits, 0.5) / counts.total())
                sizes[number] += 1
    return float(np.exp(logs / np.maximum(sizes, 1)).mean())


def _best_of_others(best: list[int], own: int) -> int:
    """Largest count of an n-gram in any other text, when it is `own` times in this one."""
    if len(best) == 1:
        return 0
    return best[0] if best[-1] == own else best[-1]


def openings(texts: Sequence[str], number: int = NUM_OPENINGS) -> dict[str, float]:
    """The most frequent beginnings, from a task's verb on, with their shares."""
    counts = Counter(opening(text) for text in texts)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:number]
    return {name: count / len(texts) for name, count in ordered}


def style(texts: Sequence[str]) -> dict[str, float]:
    """Figures of length and register of some texts."""
    lengths = np.array([len(text.split()) for text in texts] or [0])
    number = max(1, len(texts))
    return {
        "words_mean": float(lengths.mean()),
        "words_sd": float(lengths.std()),
        "first_words": len({first_word(text) for text in texts}) / number,
        "question_marks": sum(text.rstrip().endswith("?") for text in texts) / number,
        "capitalised": sum(text[:1].isupper() for text in texts) / number,
        "you_or_i": sum(bool({"you", "i", "my", "me", "your"} & set(text.lower().split())) for text in texts) / number,
    }


def wording_figures(texts: Sequence[str]) -> dict[str, Any]:
    """Everything about the wording of some texts."""
    return {
        "num_texts": len(texts),
        "near_duplicate_share": near_duplicate_share(texts),
        "embedding_spread": spread(texts),
        "self_bleu": self_bleu(texts),
        **style(texts),
        "openings": openings(texts),
    }


def place_figures(places: NDArray[np.float64], chunks: NDArray[np.int64]) -> dict[str, Any]:
    """Where in their documents answers begin to be quoted.

    Args:
        places: Middle of a pair's first excerpt, as a share of its document.
        chunks: Coverage chunk that found its template; below 0 for the whole document.
    """
    local = chunks >= 0
    inside = (places >= 0.19) & (places <= 0.71)
    return {
        "num_pairs": len(places),
        "histogram": np.histogram(places, np.linspace(0, 1, 21))[0].tolist(),
        "between_19_and_71_percent": float(inside.mean()) if len(places) else 0.0,
        "num_by_chunk": int(local.sum()),
        "pearson_chunk_place": pearson(chunks[local].astype(np.float64), places[local]),
    }
