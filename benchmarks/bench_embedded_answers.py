"""Answers of the embedded tier: which sentences, when to refuse, and which pairs to believe.

    python benchmarks/bench_embedded_answers.py --data FOLDER [--package FOLDER] --out benchmarks/results/NAME.md

Stories: explicit questions of FairytaleQA's validation split with a literal span; the share whose span lies in the one,
two or three sentences that rank first. Health: development pages of MedQuAD with several answers, headings never looked
at; the run of sentences that is chosen against the answer that the page gives, by ROUGE-L. Refusal and judge: the share
of (right, wrong) couples in the right order, by kind of wrong document or answer. Plain baselines and what the tier had
before stand beside every figure. Nothing here was trained on: validation stories, development pages.

FOLDER holds ``docs_dev.parquet`` and ``supervised/`` with ``fairytaleqa`` and ``medquad``.
"""

import argparse
import datetime
import platform
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.cases import (
    Asking,
    Shelf,
    asked_answers,
    asked_short_texts,
    asked_texts,
    auc,
    thinned,
)
from fineinstructions.embedded.answers.examples import Example, health_examples, read_documents, story_examples
from fineinstructions.embedded.answers.lexical import Bm25
from fineinstructions.embedded.answers.model import STORY, AnswerModel, Asked
from fineinstructions.embedded.answers.wrong import WrongTexts
from fineinstructions.embedded.encoder import DATA_DIR
from fineinstructions.embedded.judge import verdict

SEED = 7
MAX_ROUGE_WORDS = 1_000
Ranked = Callable[[Asked], NDArray[np.float64]]


def overlap(asked: Asked, model: AnswerModel) -> NDArray[np.float64]:
    """Weighted share of the question's words in every sentence."""
    words = asked.question.stems
    shares = [sum(model.rarity[w] for w in words if w in stems) for stems in asked.sentences.sets]
    return np.array(shares) / max(1e-9, sum(model.rarity[w] for w in words))


def bm25(asked: Asked) -> NDArray[np.float64]:
    """BM25 of every sentence among the sentences of its document."""
    sentences = asked.sentences
    return Bm25([sentences.string(n) for n in range(len(sentences))]).scores(asked.question.text)


def readers(sets: dict[str, Sequence[Example]], model: AnswerModel, shelf: Shelf) -> Iterator[str]:
    """A table of which reader the texts of a set go to, for the model sees no name of a set."""
    yield "\n## Which reader reads them\n"
    yield "| texts | n | read as a story | read as a page |\n| --- | --- | --- | --- |"
    for name, examples in sets.items():
        texts = {(example.text, example.title) for example in examples}
        told = sum(model.sort(shelf.of(*text)) == STORY for text in texts)
        yield f"| {name} | {len(texts)} | {told} | {len(texts) - told} |"


def contained(examples: Sequence[Example], model: AnswerModel, shelf: Shelf) -> Iterator[str]:
    """A table of how often a span lies in the first sentences of a ranking."""
    generator = np.random.Generator(np.random.PCG64(SEED))
    rankings: dict[str, Ranked] = {
        "random": lambda asked: generator.random(len(asked.sentences)),
        "first sentences": lambda asked: -np.arange(len(asked.sentences), dtype=float),
        "BM25": bm25,
        "rarity overlap": lambda asked: overlap(asked, model),
        "trees": lambda asked: asked.chances.astype(float),
    }
    hits: dict[str, list[list[bool]]] = defaultdict(list)
    for example in examples:
        asked = model.ask(example.question, shelf.of(example.text, example.title))
        for name, ranking in rankings.items():
            order = np.argsort(-ranking(asked), kind="stable")
            hits[name].append([_holds(asked, order[:top], example) for top in (1, 2, 3)])
    yield f"\n## Stories: the answer lies in the first sentences ({len(examples)} questions)\n"
    yield "| ranking | 1 | 2 | 3 |\n| --- | --- | --- | --- |"
    for name, found in hits.items():
        yield f"| {name} | " + " | ".join(f"{share:.3f}" for share in np.mean(found, axis=0)) + " |"


def _holds(asked: Asked, numbers: NDArray[np.int64], example: Example) -> bool:
    spans = [asked.sentences.spans[n] for n in numbers]
    return any(start <= a and b <= end for a, b in example.spans for start, end in spans)


def chosen_spans(examples: Sequence[Example], model: AnswerModel, shelf: Shelf) -> Iterator[str]:
    """A table of ROUGE-L of the chosen run of sentences."""

    def opening(asked: Asked) -> tuple[int, int]:
        return 0, min(5, len(asked.sentences))

    def whole(asked: Asked) -> tuple[int, int]:
        return 0, len(asked.sentences)

    def window(asked: Asked) -> tuple[int, int]:
        sums = np.convolve(overlap(asked, model), np.ones(5), "valid" if len(asked.sentences) >= 5 else "same")
        start = int(sums.argmax())
        return start, min(len(asked.sentences), start + 5)

    choices = {"first 5 sentences": opening, "whole document": whole, "best 5 by overlap": window, "trees": model.span}
    scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for example in examples:
        asked = model.ask(example.question, shelf.of(example.text, example.title))
        (span,) = example.spans
        gold = example.text[slice(*span)]
        for name, choose in choices.items():
            start, end = choose(asked)
            numbers = range(start, end)
            inside = [asked.sentences.spans[n][0] < span[1] and span[0] < asked.sentences.spans[n][1] for n in numbers]
            text = " ".join(asked.sentences.string(n) for n in numbers)
            scores[name].append((rouge_l(text, gold), float(np.mean(inside)) if inside else 0.0))
    yield f"\n## Health pages without headings: one span chosen ({len(examples)} questions)\n"
    yield "| choice | ROUGE-L | share of chosen sentences in the answer |\n| --- | --- | --- |"
    for name, found in scores.items():
        yield f"| {name} | " + " | ".join(f"{value:.3f}" for value in np.mean(found, axis=0)) + " |"


def rouge_l(text: str, gold: str) -> float:
    """F1 of the longest common subsequence of words; both texts cut to `MAX_ROUGE_WORDS`."""
    a, b = (re.findall(r"\w+", t.lower())[:MAX_ROUGE_WORDS] for t in (text, gold))
    if not a or not b:
        return 0.0
    ids = {word: number for number, word in enumerate({*a, *b})}
    row = np.zeros(len(b) + 1, np.int64)
    columns = np.array([ids[word] for word in b])
    for word in a:
        extended = np.where(columns == ids[word], row[:-1] + 1, row[1:])
        row[1:] = np.maximum.accumulate(np.maximum(extended, row[1:]))
    return 2.0 * int(row[-1]) / (len(a) + len(b))


def refusal(
    examples: Sequence[Example], wrong: WrongTexts, model: AnswerModel, shelf: Shelf, short: bool = False
) -> Iterator[str]:
    """A table of AUC by kind of wrong document, and of what is wrongly let through; of whole texts, or short ones."""
    cases = asked_short_texts if short else asked_texts
    scores: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for example in examples:
        for kind, asked in cases(example, wrong, Asking(model), shelf):
            words = asked.question.stems
            total = max(1e-9, sum(model.rarity[w] for w in words))
            covered = sum(model.rarity[w] for w in words if w in asked.sentences.places) / total
            best = float(bm25(asked).max(initial=0.0))
            scores[kind].append((covered, best, model.answerable(asked)))
    yield from _orders(
        f"{examples[0].kind}{', a few sentences' if short else ''}",
        "refusal",
        ("coverage", "best BM25", "trees"),
        scores,
    )


def judging(examples: Sequence[Example], wrong: WrongTexts, model: AnswerModel, shelf: Shelf) -> Iterator[str]:
    """A table of AUC by kind of wrong answer; beside it what the rules of the judge say, and how much words overlap."""
    scores: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for example in examples:
        for kind, asked, spans in asked_answers(example, wrong, Asking(model), shelf):
            text = " ".join(asked.sentences.text[a:b] for a, b in spans)
            inside = [n for n, (a, b) in enumerate(asked.sentences.spans) if any(a < d and c < b for c, d in spans)]
            near = float(overlap(asked, model)[inside].max(initial=0.0))
            rules = float(verdict(asked.question.text, text, [])[0])
            scores[kind].append((near, rules, model.fitting(asked, spans)))
    yield from _orders(examples[0].kind, "judge", ("overlap", "rules", "trees"), scores)


def _orders(
    sort: str, what: str, names: tuple[str, ...], scores: dict[str, list[tuple[float, float, float]]]
) -> Iterator[str]:
    right = np.array(scores.pop("right"), np.float32)
    yield f"\n## {what.capitalize()}, {sort} ({len(right)} right ones)\n"
    yield f"| wrong | n | {' | '.join(names)} | wrongly accepted by trees where nine of ten right ones are |"
    yield "| --- | --- |" + " --- |" * (len(names) + 1)
    threshold = np.quantile(right[:, -1], 0.1)
    for kind, found in sorted(scores.items()):
        values = np.array(found, np.float32)
        cells = [f"{auc(right[:, k], values[:, k]):.3f}" for k in range(len(names))]
        yield f"| {kind} | {len(values)} | {' | '.join(cells)} | {(values[:, -1] >= threshold).mean():.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--package", type=Path, default=DATA_DIR, help="folder of the model; the package's by default")
    parser.add_argument("--questions", type=int, default=500, help="most questions for the tables of refusal and judge")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model, shelf = AnswerModel.load(options.package), Shelf()
    stories = story_examples(options.data / "supervised" / "fairytaleqa.parquet", "val")
    pages = read_documents([options.data / "docs_dev.parquet"])
    health = health_examples(options.data / "supervised" / "medquad.parquet", pages)
    several = [e for e in health if sum(other.text == e.text for other in health) > 1]
    lines = [f"# Answers of the embedded tier, {datetime.date.today()}\n"]
    lines.append(f"`bench_embedded_answers.py`, {platform.machine()}, at most {options.questions} questions a table.")
    lines += readers({"stories": stories, "health pages": several}, model, shelf)
    lines += contained(stories, model, shelf)
    lines += chosen_spans(thinned(several, options.questions), model, shelf)
    for examples in (stories, several):
        few, wrong = thinned(examples, options.questions), WrongTexts(examples, SEED)
        lines += refusal(few, wrong, model, shelf)
        lines += judging(few, wrong, model, shelf)
    lines += refusal(few, wrong, model, shelf, short=True)
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
