"""Does a question find its text: BM25, the embedded encoder, and both together; and do descriptions find documents.

    python benchmarks/bench_embedded_retrieval.py --data FOLDER [--former FOLDER] --out benchmarks/results/NAME.md

Questions of splits that nothing was trained on, among pools of two sizes. Right is the one text the question was
written for, though others overlap with it, so true recall is higher. `--former` names a folder with an earlier encoder,
which then stands beside the one of the package. Trusted: a question's word counts as much as the share of training
questions with that word whose text holds it ("discuss" and "happen" seldom do). Fused: the cosine times a weight, added
to the trusted BM25 score over the question's best; the weight is chosen on stories, pages and meetings of the training
split that the encoder was not trained on: one for all, and one for each of the three. Where each has its own, BM25's k1
(0.5 or 1.2) and the cosine (of the whole text, or of the nearest of ten coverage chunks and the whole) are chosen too.
Trees: `learned_ranking`, learned from a kind's kept-back questions, ranks the first hundred again, for the kinds where
it finds more of these questions' texts by four folds of stories, pages or meetings, see the second table.
Descriptions: every MedQuAD question type becomes one template with an unfilled slot, and what finds is its description
alone; right are the development pages that have an answer of that type.

FOLDER holds ``docs_dev.parquet`` and ``supervised/`` with ``fairytaleqa``, ``medquad`` and ``qmsum``. Needs the extra
``train``.
"""

import argparse
import datetime
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from labelled_questions import Labelled, Pool, Row, read_labelled
from learned_ranking import Candidates, LearnedRanking, Ranked, crossed, ranked
from numpy.typing import NDArray

from fineinstructions.embedded.answers.lexical import K1, Bm25, content_stems
from fineinstructions.embedded.descriptions import describe
from fineinstructions.embedded.encoder import EmbeddedEncoder
from fineinstructions.embedded.words import tokenize
from fineinstructions.pooling import Pooling

WEIGHTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)
CHUNKS = Pooling(10, 0.08, 1.0)
"""Coverage chunks of a text whose nearest part counts; of five settings the best on stories kept back."""
PRIOR = 3.0
"""Questions that the mean counts for in a word's trust; chosen on questions kept back, 3 or 10."""
TYPES = {
    "information": "what is _",
    "treatment": "what are treatments for _",
    "inheritance": "how is _ inherited",
    "frequency": "how many people are affected by _",
    "genetic changes": "what are genetic changes related to _",
    "causes": "what causes _",
    "exams and tests": "how to diagnose _",
    "symptoms": "what are symptoms of _",
    "susceptibility": "who is at risk for _",
    "considerations": "what to do for _",
    "prevention": "how to prevent _",
    "research": "what research is being done for _",
    "outlook": "what is outlook for _",
    "stages": "what are stages of _",
    "complications": "what are complications of _",
}
"""A frame for every question type: the type's usual wording in MedQuAD with its subject taken out."""


def trust(training: Sequence[Row]) -> dict[str, float]:
    """Chance that a word of a question stands in its text, by word, drawn towards the mean where it is rare."""
    asked: Counter[str] = Counter()
    held: Counter[str] = Counter()
    words_of = cache(lambda text: frozenset(content_stems(text)))
    for question, text, _ in training:
        words = words_of(question)
        asked.update(words)
        held.update(words & words_of(text))
    mean = held.total() / max(1, asked.total())
    return {word: (held[word] + PRIOR * mean) / (number + PRIOR) / mean for word, number in asked.items()}


def lexical_scores(pool: Pool, trusted: dict[str, float] | None = None, k1: float = K1) -> NDArray[np.float64]:
    """BM25 over each question's best, shape (questions, texts); words weighed by `trusted` where it is given."""
    search = Bm25(pool.texts, k1)
    if trusted is None:
        scores = np.stack([search.scores(question) for question in pool.questions])
    else:
        scores = np.stack([_trusted_scores(search, question, trusted) for question in pool.questions])
    return scores / np.maximum(scores.max(axis=1, keepdims=True), 1e-9)


def _trusted_scores(search: Bm25, question: str, trusted: dict[str, float]) -> NDArray[np.float64]:
    total = np.zeros(search.num_texts)
    for token in tokenize(question):
        for word in content_stems(token.text):
            total += trusted.get(word, 1.0) * search.scores(token.text)
    return total


def cosines(pool: Pool, encoder: EmbeddedEncoder) -> NDArray[np.float64]:
    """Cosines, shape (questions, texts)."""
    return (encoder.encode_texts(pool.questions) @ encoder.encode_texts(pool.texts).T).astype(np.float64)


def nearest_cosines(pool: Pool, encoder: EmbeddedEncoder) -> NDArray[np.float64]:
    """Cosines with the nearest coverage chunk of a text or the whole, shape (questions, texts)."""
    asked = encoder.encode_texts(pool.questions)
    pooled = encoder.encode_documents(pool.texts, CHUNKS)
    return np.stack([(asked @ text.vectors.T).max(axis=1) for text in pooled], axis=1).astype(np.float64)


def recall(scores: NDArray[np.float64], right: NDArray[np.int64], top: int) -> float:
    """Share of questions whose text is among the `top` best; texts with the same score count against it."""
    own = scores[np.arange(len(right)), right][:, None]
    return float(((scores >= own).sum(axis=1) <= top).mean())


Scored = tuple[Pool, NDArray[np.float64], NDArray[np.float64]]
"""A pool with its lexical scores and its cosines."""

Variant = tuple[float, str]
"""BM25's k1, and which cosine: of the ``whole`` text or of the ``nearest`` part."""


def best_weight(tuning: Sequence[Scored]) -> tuple[float, float]:
    """Weight of the cosine that finds most of the kept-back questions' texts, and the sum of their recalls."""
    found = {w: sum(recall(a + w * b, p.right, 10) for p, a, b in tuning) for w in WEIGHTS}
    weight = max(WEIGHTS, key=found.__getitem__)
    return weight, found[weight]


def scored(pools: Sequence[Pool], encoder: EmbeddedEncoder, trusted: dict[str, float]) -> dict[Variant, list[Scored]]:
    """The pools' lexical scores and cosines in every variant, the plain one first."""
    lexical = {k1: [lexical_scores(p, trusted, k1) for p in pools] for k1 in (K1, 0.5)}
    near = {"whole": [cosines(p, encoder) for p in pools], "nearest": [nearest_cosines(p, encoder) for p in pools]}
    return {(k1, which): list(zip(pools, lexical[k1], near[which], strict=True)) for k1 in lexical for which in near}


def retrieval(labelled: Labelled, encoders: dict[str, EmbeddedEncoder]) -> Iterator[str]:
    """Tables of recall at 10 and at 1."""
    pools, tuning = labelled.pools, labelled.tuning
    trusted = trust(labelled.training)
    yield "\n## Question to text: recall at 10 (at 1)\n"
    yield from _head(pools)
    beside: list[str] = []
    yield _line("BM25", pools, [lexical_scores(p) for p in pools])
    yield _line("BM25, trusted words", pools, [lexical_scores(p, trusted) for p in pools])
    for name, encoder in encoders.items():
        ours, kept = scored(pools, encoder, trusted), scored(tuning, encoder, trusted)
        plain = (K1, "whole")
        weight, _ = best_weight(kept[plain])
        yield _line(f"encoder, {name}", pools, [b for _, _, b in ours[plain]])
        yield _line(f"encoder, {name}, nearest part", pools, [b for _, _, b in ours[K1, "nearest"]])
        fused = [a + weight * b for _, a, b in ours[plain]]
        yield _line(f"BM25, trusted words + {weight:g} x encoder, {name}", pools, fused)
        chosen = {kind: _chosen(kept, kind) for kind in dict.fromkeys(one.kind for one in tuning)}
        said = "; ".join(f"{w:g} x {which}, k1 {k1:g} for {kind}" for kind, ((k1, which), w) in chosen.items())
        fused, fused_kept = _fused(ours, chosen), _fused(kept, chosen)
        yield _line(f"BM25, trusted words + encoder, {name}: {said}", pools, fused)
        seen, taught = _seen(ours, fused, encoder, trusted), _seen(kept, fused_kept, encoder, trusted)
        kinds, ranked_kept = _crossed(tuning, fused_kept, taught)
        again = _by_trees(labelled, kinds, fused, seen, taught)
        yield _line(f"the same, trees for {' and '.join(kinds) or 'none'}, {name}", pools, again)
        beside.append(_line(f"BM25, trusted words + encoder, {name}", tuning, fused_kept))
        beside.append(_line(f"trees, {name}", tuning, ranked_kept))
    yield "\n## The same on questions kept back from training, which settings are chosen on; trees by four folds\n"
    yield from _head(tuning)
    yield from beside


def _fused(pools: dict[Variant, list[Scored]], chosen: dict[str, tuple[Variant, float]]) -> list[NDArray[np.float64]]:
    """Lexical scores and cosines of every pool, added up as chosen for its kind."""
    found = []
    for number, (one, _, _) in enumerate(pools[K1, "whole"]):
        variant, weight = chosen[one.kind]
        _, a, b = pools[variant][number]
        found.append(a + weight * b)
    return found


def _seen(
    pools: dict[Variant, list[Scored]],
    fused: Sequence[NDArray[np.float64]],
    encoder: EmbeddedEncoder,
    trusted: dict[str, float],
) -> list[Ranked]:
    """What trees see of every pool."""
    return [
        ranked(Candidates(one.questions, one.texts, scores, near, encoder, trusted), one.right)
        for (one, _, near), scores in zip(pools[K1, "nearest"], fused, strict=True)
    ]


def _crossed(
    tuning: Sequence[Pool], fused: Sequence[NDArray[np.float64]], taught: Sequence[Ranked]
) -> tuple[list[str], list[NDArray[np.float64]]]:
    """Kinds whose trees find more of the kept-back questions' texts than `fused` does, and all scores by folds."""
    better, scores = [], list(fused)
    for kind in dict.fromkeys(one.kind for one in tuning):
        mine = [number for number, one in enumerate(tuning) if one.kind == kind]
        gained = 0.0
        for number, found in zip(
            mine, crossed([taught[n] for n in mine], [tuning[n].groups for n in mine]), strict=True
        ):
            gained += recall(found, tuning[number].right, 10) - recall(fused[number], tuning[number].right, 10)
            scores[number] = found
        if gained > 0.0:
            better.append(kind)
    return better, scores


def _by_trees(
    labelled: Labelled,
    kinds: Sequence[str],
    fused: Sequence[NDArray[np.float64]],
    seen: Sequence[Ranked],
    taught: Sequence[Ranked],
) -> list[NDArray[np.float64]]:
    """Scores by trees that a kind's kept-back questions taught, of `kinds`; of the others, `fused`."""
    trees = {
        kind: LearnedRanking([rows for one, rows in zip(labelled.tuning, taught, strict=True) if one.kind == kind])
        for kind in kinds
    }
    return [
        trees[one.kind].scores(rows) if one.kind in trees else scores
        for one, scores, rows in zip(labelled.pools, fused, seen, strict=True)
    ]


def _chosen(kept: dict[Variant, list[Scored]], kind: str) -> tuple[Variant, float]:
    """Variant and weight that find most of one kind's kept-back questions' texts."""
    found = {variant: best_weight([one for one in all_ if one[0].kind == kind]) for variant, all_ in kept.items()}
    variant = max(found, key=lambda variant: found[variant][1])
    return variant, found[variant][0]


def _head(pools: Sequence[Pool]) -> Iterator[str]:
    yield "| method | " + " | ".join(f"{p.name} ({len(p.texts):,})" for p in pools) + " |"
    yield "| --- |" + " --- |" * len(pools)


def _line(name: str, pools: Sequence[Pool], scores: Sequence[NDArray[np.float64]]) -> str:
    cells = [f"{recall(s, p.right, 10):.3f} ({recall(s, p.right, 1):.2f})" for p, s in zip(pools, scores, strict=True)]
    return f"| {name} | {' | '.join(cells)} |"


def descriptions(data: Path, encoders: dict[str, EmbeddedEncoder], seed: int = 0) -> Iterator[str]:
    """A table of nDCG at 10 of unfilled descriptions among the development pages of MedQuAD."""
    rows = pq.read_table(data / "supervised" / "medquad.parquet").to_pylist()
    kinds: dict[str, set[str]] = {}
    for row in rows:
        if row["doc_split"] == "dev":
            kinds.setdefault(row["doc_id"], set()).add(row["question_type"])
    documents = pq.read_table(data / "docs_dev.parquet", columns=["id", "text"]).to_pylist()
    texts = {d["id"]: d["text"] for d in documents if d["id"] in kinds}
    ids = sorted(texts)
    asked = {kind: describe(frame, ("a disease",)) for kind, frame in TYPES.items()}
    right = np.array([[kind in kinds[i] for i in ids] for kind in asked])
    asked = {kind: text for kind, text, some in zip(asked, asked.values(), right.any(axis=1), strict=True) if some}
    right = right[right.any(axis=1)]
    yield "\n## Description with unfilled slot to document: nDCG at 10\n"
    yield f"{len(ids)} pages, {len(asked)} descriptions; a page has {right.sum() / len(ids):.1f} of the types.\n"
    yield "| method | nDCG at 10 |\n| --- | --- |"
    generator = np.random.Generator(np.random.PCG64(seed))
    yield f"| chance | {ndcg(generator.random(right.shape), right):.3f} |"
    search = Bm25([texts[i] for i in ids])
    yield f"| BM25 | {ndcg(np.stack([search.scores(text) for text in asked.values()]), right):.3f} |"
    pooling = Pooling(5, 0.05, 1.0)
    for name, encoder in encoders.items():
        queries = encoder.encode_texts(list(asked.values()))
        pooled = encoder.encode_documents([texts[i] for i in ids], pooling)
        whole = np.stack([queries @ document.vectors[-1] for document in pooled], axis=1)
        every = np.stack([(queries @ document.vectors.T).max(axis=1) for document in pooled], axis=1)
        yield f"| encoder, {name}, whole | {ndcg(whole.astype(float), right):.3f} |"
        yield f"| encoder, {name}, K + 1 | {ndcg(every.astype(float), right):.3f} |"


def ndcg(scores: NDArray[np.float64], right: NDArray[np.bool_], top: int = 10) -> float:
    """Mean normalised discounted gain of the `top` best columns of every row."""
    discount = 1.0 / np.log2(np.arange(2, top + 2))
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    gain = np.take_along_axis(right, order, axis=1) @ discount[: order.shape[1]]
    best = np.array([discount[: min(top, int(n))].sum() for n in right.sum(axis=1)])
    return float((gain / best).mean())


def positions(data: Path, encoders: dict[str, EmbeddedEncoder], chunks: int = 5) -> Iterator[str]:
    """Correlation between the chunk that a question retrieves and where its answer stands."""
    documents = pq.read_table(data / "docs_dev.parquet", columns=["id", "text"]).to_pylist()
    texts = {d["id"]: d["text"] for d in documents}
    rows = pq.read_table(data / "supervised" / "medquad.parquet").to_pylist()
    rows = [r for r in rows if r["doc_split"] == "dev" and r["answer_start"] is not None and r["answer_start"] >= 0]
    number = Counter(r["doc_id"] for r in rows)
    several = np.array([number[r["doc_id"]] > 1 for r in rows])
    yield "\n## Retrieving chunk against position of the answer, MedQuAD development pages\n"
    yield f"| Pearson | {len(rows):,} answers | {several.sum():,} of pages with several |\n| --- | --- | --- |"
    where = np.array([(r["answer_start"] + r["answer_end"]) / 2 / len(texts[r["doc_id"]]) for r in rows])

    def line(name: str, found: Sequence[int]) -> str:
        whole, some = np.corrcoef(found, where), np.corrcoef(np.array(found)[several], where[several])
        return f"| {name} | {whole[0, 1]:.3f} | {some[0, 1]:.3f} |"

    yield line("the chunk that lies nearest, which is the most there is", list((where * chunks).astype(int)))
    for name, encoder in encoders.items():
        ids = sorted({r["doc_id"] for r in rows})
        pooled = dict(
            zip(ids, encoder.encode_documents([texts[i] for i in ids], Pooling(chunks, 0.05, 1.0)), strict=True)
        )
        asked = encoder.encode_texts([r["question"] for r in rows])
        answers = encoder.encode_texts([r["answer"] for r in rows])
        for what, vectors in (("question", asked), ("answer", answers)):
            found = [
                int((pooled[r["doc_id"]].vectors[:chunks] @ vector).argmax())
                for r, vector in zip(rows, vectors, strict=True)
            ]
            yield line(f"encoder, {name}, asked with the {what}", found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--former", type=Path, help="folder with an earlier encoder.npz and encoder.json")
    parser.add_argument("--package", type=Path, help="folder of the encoder to measure; the package's own by default")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    encoders = {"former": EmbeddedEncoder(options.former)} if options.former else {}
    encoders["package"] = EmbeddedEncoder(options.package) if options.package else EmbeddedEncoder()
    lines = [f"# Retrieval of the embedded tier, {datetime.date.today()}\n"]
    identity = ", ".join(f"{name} {encoder.encoder_id}" for name, encoder in encoders.items())
    lines.append(f"`bench_embedded_retrieval.py`, {platform.machine()}; encoders: {identity}.")
    labelled = read_labelled(options.data)
    parts: list[Callable[[], Iterator[str]]] = [
        lambda: retrieval(labelled, encoders),
        lambda: descriptions(options.data, encoders),
        lambda: positions(options.data, encoders),
    ]
    for part in parts:
        lines += part()
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
