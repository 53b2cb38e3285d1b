"""Learning the answer model: labelled questions in, `AnswerModel` out.

In: examples of two kinds, and passages to count words in. Out: the model. Word associations and the ranker are learned
in halves, each half scored by what the other learned, so that refusal and judge are fitted to scores as they are on
texts never seen; the last fold is held out and gives the thresholds. Deterministic.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fineinstructions import statistics
from fineinstructions.embedded.answers.associations import Associations, learn_associations
from fineinstructions.embedded.answers.boosting import Boosting, fit_trees
from fineinstructions.embedded.answers.evidence import answer_features, document_features
from fineinstructions.embedded.answers.examples import NUM_FOLDS, Example
from fineinstructions.embedded.answers.features import sentence_features
from fineinstructions.embedded.answers.lexical import Rarity
from fineinstructions.embedded.answers.model import AnswerModel, Asked, best_run
from fineinstructions.embedded.answers.question import read_question
from fineinstructions.embedded.answers.sentences import Sentences
from fineinstructions.embedded.answers.trees import Trees, sigmoid
from fineinstructions.embedded.answers.wrong import WrongTexts

Say = Callable[[str], None]
Spans = tuple[tuple[int, int], ...]

MAX_ROWS_PER_QUESTION = 24
MAX_RIGHT_ROWS = 8
MAX_QUESTIONS = 2_500
"""Of each kind, for the ranker."""
MAX_PAIR_QUESTIONS = 700
"""Of each kind, for refusal and judge."""
RANKER = Boosting(num_trees=280, depth=5)
HEADS = Boosting(num_trees=140, depth=4)
ACCEPTED = 0.9
"""Share of the right ones that a threshold lets through."""
CUTS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
_EMPTY = Trees(np.zeros((0, 1), np.int64), np.zeros((0, 1), np.float32), np.zeros((0, 2), np.float32), 0.0)


@dataclass(frozen=True)
class _Half:
    """A model that has seen one half of the examples only."""

    associations: Associations
    ranker: Trees


def learn_answers(examples: Sequence[Example], rarity: Rarity, say: Say) -> AnswerModel:
    """Fit everything.

    Args:
        examples: Labelled questions of both kinds.
        rarity: How rare words are.
        say: Takes lines about what was learned.

    Raises:
        ValueError: If there are too few examples to have right and wrong rows in every half.
    """
    shelf = Shelf()
    kinds = [[e for e in examples if e.kind == kind] for kind in dict.fromkeys(e.kind for e in examples)]
    learning = [thinned([e for e in of_kind if _half(e) is not None], MAX_QUESTIONS) for of_kind in kinds]
    halves = [[e for of_kind in learning for e in of_kind if _half(e) == number] for number in (0, 1)]
    associations = [learn_associations(_words(half, shelf)) for half in halves]
    rows = [
        _ranker_rows(half, AnswerModel(rarity, associations[1 - number], _EMPTY, _EMPTY, _EMPTY, 0, 0, 0), shelf)
        for number, half in enumerate(halves)
    ]
    rankers = [fit_trees(*of_half, RANKER) for of_half in rows]
    everything = learn_associations(_words([e for half in halves for e in half], shelf))
    ranker = fit_trees(np.concatenate([r for r, _ in rows]), np.concatenate([y for _, y in rows]), RANKER)
    say(f"ranker: {sum(len(r) for r, _ in rows):,} sentences of {sum(map(len, halves)):,} questions")
    crossed = [AnswerModel(rarity, associations[1 - n], rankers[1 - n], _EMPTY, _EMPTY, 0.0, 0.0, 0.0) for n in (0, 1)]
    final = AnswerModel(rarity, everything, ranker, _EMPTY, _EMPTY, 0.0, 0.0, 0.0)
    pairs = [Pairs(crossed, shelf), Pairs([final, final], shelf)]
    for of_kind in kinds:
        wrong = WrongTexts(of_kind)
        for kept, heap in ((True, pairs[0]), (False, pairs[1])):
            for example in thinned([e for e in of_kind if (_half(e) is not None) == kept], MAX_PAIR_QUESTIONS):
                heap.add(example, wrong)
    refuser = fit_trees(*pairs[0].documents.arrays(), HEADS)
    judge = fit_trees(*pairs[0].answers.arrays(), HEADS)
    say(f"refusal: {len(pairs[0].documents.rows):,} documents; judge: {len(pairs[0].answers.rows):,} answers")
    for name, trees, table in (("refusal", refuser, pairs[1].documents), ("judge", judge, pairs[1].answers)):
        for line in table.told(trees):
            say(f"{name}, held out: {line}")
    return AnswerModel(
        rarity,
        everything,
        ranker,
        refuser,
        judge,
        _best_cut(final, [e for e in examples if e.kind == "health" and _half(e) is None], shelf),
        pairs[1].documents.threshold(refuser),
        pairs[1].answers.threshold(judge),
    )


def _half(example: Example) -> int | None:
    """0 or 1, or nothing for the held-out fold."""
    return None if example.fold == NUM_FOLDS - 1 else example.fold % 2


def thinned(examples: Sequence[Example], number: int) -> list[Example]:
    """Every so many-th example, so that at most `number` are left."""
    step = -(-len(examples) // number) if examples else 1
    return list(examples[::step])


class Shelf:
    """Sentences of every text that was asked for."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Sentences] = {}

    def of(self, text: str, title: str) -> Sentences:
        """The text's sentences."""
        if (text, title) not in self._kept:
            self._kept[text, title] = Sentences(text, title)
        return self._kept[text, title]


def right_sentences(sentences: Sentences, spans: Spans) -> NDArray[np.bool_]:
    """Which sentences hold some of the spans, shape (S,)."""
    return np.array([any(a < end and start < b for a, b in spans) for start, end in sentences.spans], bool)


def _words(
    examples: Iterable[Example], shelf: Shelf
) -> Iterator[tuple[str, list[frozenset[str]], list[frozenset[str]]]]:
    for example in examples:
        sentences = shelf.of(example.text, example.title)
        right = right_sentences(sentences, example.spans)
        sets = sentences.sets
        yield (
            example.question,
            [s for s, r in zip(sets, right, strict=True) if r],
            [s for s, r in zip(sets, right, strict=True) if not r],
        )


def _ranker_rows(
    examples: Sequence[Example], model: AnswerModel, shelf: Shelf
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rows, labels = [], []
    for number, example in enumerate(examples):
        sentences = shelf.of(example.text, example.title)
        right = right_sentences(sentences, example.spans)
        if not right.any() or right.all():
            continue
        question = read_question(example.question, model.associations)
        features = sentence_features(question, sentences, model.rarity)
        generator = np.random.Generator(np.random.PCG64(number))
        yes = _some(np.flatnonzero(right), MAX_RIGHT_ROWS, generator)
        no = _some(np.flatnonzero(~right), MAX_ROWS_PER_QUESTION - len(yes), generator)
        rows.append(features[np.r_[yes, no]])
        labels.append(np.r_[np.ones(len(yes), bool), np.zeros(len(no), bool)])
    return np.concatenate(rows), np.concatenate(labels)


def _some(places: NDArray[np.int64], number: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return places if len(places) <= number else np.sort(generator.choice(places, number, replace=False))


class Table:
    """Rows of features with what they are."""

    def __init__(self) -> None:
        self.rows: list[NDArray[np.float32]] = []
        self.kinds: list[str] = []
        """``right``, or how a row is wrong."""

    def add(self, row: NDArray[np.float32], kind: str) -> None:
        """Take one row."""
        self.rows.append(row)
        self.kinds.append(kind)

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Rows and whether each is right."""
        return np.stack(self.rows), np.array([kind.startswith("right") for kind in self.kinds])

    def threshold(self, trees: Trees) -> float:
        """Chance that `ACCEPTED` of the right rows reach."""
        rows, right = self.arrays()
        return round(float(np.quantile(sigmoid(trees.scores(rows[right])), 1.0 - ACCEPTED)), 4)

    def told(self, trees: Trees) -> Iterator[str]:
        """AUC by kind of wrong row, against the right rows of the same sort of text."""
        rows, right = self.arrays()
        scores = trees.scores(rows)
        kinds = np.array(self.kinds)
        for kind in sorted({k for k in self.kinds if not k.startswith("right")}):
            mine = right & (kinds == f"right {kind.split()[0]}")
            yield f"{kind} AUC {auc(scores[mine], scores[kinds == kind]):.3f} (n={int((kinds == kind).sum())})"


class Pairs:
    """Right and wrong documents and answers, as rows.

    Args:
        models: The model that scores each half.
        shelf: Sentences.
    """

    def __init__(self, models: Sequence[AnswerModel], shelf: Shelf) -> None:
        self._models = models
        self._shelf = shelf
        self.documents = Table()
        self.answers = Table()

    def add(self, example: Example, wrong: WrongTexts) -> None:
        """Rows of one example, the right ones and the wrong ones."""
        model = Asking(self._models[_half(example) or 0])
        for kind, asked in asked_texts(example, wrong, model, self._shelf):
            row = document_features(asked.question, asked.sentences, asked.chances, model.rarity)
            self.documents.add(row, f"{'right ' if kind == 'right' else ''}{example.kind}{_tail(kind)}")
        for kind, asked, spans in asked_answers(example, wrong, model, self._shelf):
            row = answer_features(asked.question, asked.sentences, asked.chances, spans, model.rarity)
            self.answers.add(row, f"{'right ' if kind == 'right' else ''}{example.kind}{_tail(kind)}")


def _tail(kind: str) -> str:
    return "" if kind == "right" else f" {kind}"


class Asking:
    """A model that remembers what it was asked; for the questions of one example.

    Args:
        model: The model.
    """

    def __init__(self, model: AnswerModel) -> None:
        self.rarity = model.rarity
        self._model = model
        self._known: dict[tuple[str, int], Asked] = {}

    def ask(self, question: str, sentences: Sentences) -> Asked:
        """Put a question to a document, once."""
        key = (question, id(sentences))
        if key not in self._known:
            self._known[key] = self._model.ask(question, sentences)
        return self._known[key]


def asked_texts(example: Example, wrong: WrongTexts, model: "Asking", shelf: Shelf) -> Iterator[tuple[str, Asked]]:
    """The question put to the right text and to wrong ones, by kind."""
    yield "right", model.ask(example.question, shelf.of(example.text, example.title))
    found = [("random", wrong.random_other(example)), ("hard", wrong.hard_other(example))]
    if not example.asks:
        found.append(("section", wrong.same_group(example)))
    elif question := wrong.unanswered(example):
        yield "lacking", model.ask(question, shelf.of(example.text, example.title))
    for kind, text in found:
        if text and len(sentences := shelf.of(text.text, text.title)):
            yield kind, model.ask(example.question, sentences)


def asked_answers(
    example: Example, wrong: WrongTexts, model: "Asking", shelf: Shelf
) -> Iterator[tuple[str, Asked, Spans]]:
    """The right answer of an example and wrong ones, by kind."""
    sentences = shelf.of(example.text, example.title)
    right = np.flatnonzero(right_sentences(sentences, example.spans))
    if not len(right):
        return
    asked = model.ask(example.question, sentences)
    yield "right", asked, tuple(sentences.spans[n] for n in right)
    generator = wrong.luck(example, "span")
    length = len(right)
    starts = [n for n in range(len(sentences) - length + 1) if n + length <= right[0] or n > right[-1]]
    if starts:
        start = starts[int(generator.integers(len(starts)))]
        yield "span", asked, tuple(sentences.spans[start : start + length])
    others = list(wrong.other_answers(example))
    if others:
        yield "section", asked, others[int(generator.integers(len(others)))]
    for kind, text in (("document", wrong.random_other(example)), ("hard", wrong.hard_other(example))):
        if text and len(other := shelf.of(text.text, text.title)):
            start = int(generator.integers(max(1, len(other) - length + 1)))
            put = model.ask(example.question, other)
            yield kind, put, tuple(other.spans[start : start + length])
    if question := wrong.unanswered(example):
        put = model.ask(question, sentences)
        start, end = best_run(put.chances, 0.3)
        yield "unanswered", put, tuple(sentences.spans[start:end])
    elif text := wrong.same_group(example):
        other = shelf.of(text.text, text.title)
        put = model.ask(example.question, other)
        start, end = best_run(put.chances, 0.3)
        yield "unanswered", put, tuple(other.spans[start:end])


def _best_cut(model: AnswerModel, examples: Sequence[Example], shelf: Shelf) -> float:
    """The cut whose spans share most sentences with the right ones (F1, mean over examples)."""
    gains = dict.fromkeys(CUTS, 0.0)
    for example in thinned(examples, 500):
        sentences = shelf.of(example.text, example.title)
        right = right_sentences(sentences, example.spans)
        if not right.any():
            continue
        chances = model.ask(example.question, sentences).chances
        for cut in CUTS:
            start, end = best_run(chances, cut)
            gains[cut] += 2.0 * right[start:end].sum() / (right.sum() + end - start)
    return max(CUTS, key=lambda cut: gains[cut])


def auc(right: NDArray[np.float32], wrong: NDArray[np.float32]) -> float:
    """Chance that a right row scores above a wrong one, ties counting half.

    Example:
        >>> auc(np.array([2.0, 3.0], np.float32), np.array([1.0, 2.0], np.float32))
        0.875
    """
    both = np.concatenate([right, wrong]).astype(np.float64)
    return statistics.auc(both, np.arange(len(both)) < len(right))
