"""Learning the answer model: labelled questions in, `AnswerModel` out.

In: examples of several kinds, and how rare words are. Out: the model. First comes the gate, which sees no answers; then
one reader learns from the texts that tell, and one from those that inform. Every fold of stories and pages is scored by
word associations and a ranker that the other folds taught, so that refusal and judge are fitted to scores as they are
on texts never seen, and the thresholds and the cut of spans are chosen on such scores too; what is kept in the end has
learned from all folds. Deterministic.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.answers.associations import Associations, Labelled, learn_associations
from fineinstructions.embedded.answers.boosting import Boosting, fit_trees
from fineinstructions.embedded.answers.cases import Asking, Cases, Shelf, Table, right_sentences, thinned
from fineinstructions.embedded.answers.examples import NUM_FOLDS, Example
from fineinstructions.embedded.answers.features import sentence_features
from fineinstructions.embedded.answers.gate import Gate, learn_gate
from fineinstructions.embedded.answers.lexical import Rarity
from fineinstructions.embedded.answers.model import PAGE, STORY, AnswerModel, Reader, best_run
from fineinstructions.embedded.answers.question import read_question
from fineinstructions.embedded.answers.trees import Trees, no_trees
from fineinstructions.embedded.answers.wrong import WrongTexts

Say = Callable[[str], None]

MAX_ROWS_PER_QUESTION = 26
MAX_RIGHT_ROWS = 10
MAX_PER_SOURCE = 800
"""Questions of one publisher of pages: two of seven publish three quarters of them, all built alike."""
MAX_PAIR_QUESTIONS = {"story": 4_000, "health": 2_400, "page": 600}
"""For refusal and judge, by kind of example: a long page takes many times as long to ask as a story."""
INFERRED_WEIGHT = 0.5
"""How much a sentence counts that nobody marked, but that holds an answer's words."""
RANKER = Boosting()
HEADS = {
    STORY: Boosting(num_trees=250, num_leaves=15, min_rows=30),
    PAGE: Boosting(num_trees=600, num_leaves=15, min_rows=30),
}
"""Ours, by cross-validation: more trees help with pages and make random other stories harder to refuse."""
CUTS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)


def learn_answers(examples: Sequence[Example], rarity: Rarity, say: Say) -> AnswerModel:
    """Fit everything.

    Args:
        examples: Labelled questions of several kinds.
        rarity: How rare words are.
        say: Takes lines about what was learned.

    Raises:
        ValueError: If there are too few examples to have right and wrong rows.
    """
    shelf = Shelf()
    learning = balanced(examples)
    gate = _gate(learning, shelf)
    crossed: list[dict[str, Reader]] = [{} for _ in range(NUM_FOLDS)]
    final: dict[str, Reader] = {}
    for sort in (STORY, PAGE):
        mine = [e for e in learning if gate.tells(shelf.of(e.text, e.title)) == (sort == STORY)]
        *others, final[sort] = _readers(mine, rarity, shelf)
        for fold, reader in enumerate(others):
            crossed[fold][sort] = reader
        say(f"{sort} reader: ranks sentences by {len(mine):,} questions")
    models = [AnswerModel(rarity, gate, readers) for readers in crossed]
    cases = Cases(models, shelf)
    for kind in dict.fromkeys(e.kind for e in examples):
        of_kind = [e for e in learning if e.kind == kind and not e.inferred]
        wrong = WrongTexts([e for e in examples if e.kind == kind])
        for example in thinned(of_kind, MAX_PAIR_QUESTIONS[kind]):
            cases.add(example, wrong)
    for sort, kind in ((STORY, "story"), (PAGE, "health")):
        cut = _best_cut(models, [e for e in learning if e.kind == kind and not e.inferred], shelf)
        refuser, min_answerable = _head(f"{sort} refusal", cases.documents[sort], HEADS[sort], say)
        judge, min_fitting = _head(f"{sort} judge", cases.answers[sort], HEADS[sort], say)
        final[sort] = Reader(
            final[sort].associations, final[sort].ranker, refuser, judge, cut, min_answerable, min_fitting
        )
    return AnswerModel(rarity, gate, final)


def _gate(examples: Sequence[Example], shelf: Shelf) -> Gate:
    """Learned from every text once."""
    texts = {(e.text, e.title): e.kind for e in examples}
    read = [(shelf.of(*text), kind) for text, kind in texts.items()]
    told, informing = ([s for s, kind in read if len(s) and (kind == "story") == tells] for tells in (True, False))
    return learn_gate(told, informing)


def _readers(examples: Sequence[Example], rarity: Rarity, shelf: Shelf) -> list[Reader]:
    """Readers that only rank: for every fold one that the others taught, and last the one that all taught."""
    rows: list[Rows] = []
    associations: list[Associations] = []
    for fold in range(NUM_FOLDS):
        associations.append(_associations([e for e in examples if e.fold != fold], shelf))
        rows.append(_ranker_rows([e for e in examples if e.fold == fold], rarity, associations[-1], shelf))
    readers = [
        _reader(of_one, _ranker([r for f, r in enumerate(rows) if f != fold]))
        for fold, of_one in enumerate(associations)
    ]
    return [*readers, _reader(_associations(examples, shelf), _ranker(rows))]


def _reader(associations: Associations, ranker: Trees) -> Reader:
    return Reader(associations, ranker, no_trees(), no_trees(), 0.0, 0.0, 0.0)


def balanced(examples: Sequence[Example]) -> list[Example]:
    """At most `MAX_PER_SOURCE` questions of every source that is named, whole pages, in the order of their hashes."""
    kept: list[Example] = []
    pages: defaultdict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        if example.source:
            pages[example.source, example.group].append(example)
        else:
            kept.append(example)
    numbers: defaultdict[str, int] = defaultdict(int)
    for source, group in sorted(pages, key=lambda key: (key[0], pages[key][0].luck, key[1])):
        if numbers[source] < MAX_PER_SOURCE:
            numbers[source] += len(pages[source, group])
            kept += pages[source, group]
    return kept


def _associations(examples: Sequence[Example], shelf: Shelf) -> Associations:
    labelled: list[Labelled] = []
    for example in examples:
        sentences = shelf.of(example.text, example.title)
        labelled.append((example.question, sentences, right_sentences(sentences, example.spans)))
    return learn_associations(labelled)


Rows = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]


def _ranker_rows(examples: Sequence[Example], rarity: Rarity, associations: Associations, shelf: Shelf) -> Rows:
    """Features, labels and weights of some sentences of every example."""
    rows, labels, weights = [], [], []
    for number, example in enumerate(examples):
        sentences = shelf.of(example.text, example.title)
        right = right_sentences(sentences, example.spans)
        if not right.any() or right.all():
            continue
        question = read_question(example.question, associations)
        features = sentence_features(question, sentences, rarity, associations)
        generator = np.random.Generator(np.random.PCG64(number))
        yes = _some(np.flatnonzero(right), MAX_RIGHT_ROWS, generator)
        no = _some(np.flatnonzero(~right), MAX_ROWS_PER_QUESTION - len(yes), generator)
        rows.append(features[np.r_[yes, no]])
        labels.append(np.r_[np.ones(len(yes), bool), np.zeros(len(no), bool)])
        weights.append(np.full(len(yes) + len(no), INFERRED_WEIGHT if example.inferred else 1.0))
    if not rows:
        raise ValueError("a third of the labelled questions has no sentence that answers and one that does not")
    return np.concatenate(rows), np.concatenate(labels), np.concatenate(weights)


def _some(places: NDArray[np.int64], number: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return places if len(places) <= number else np.sort(generator.choice(places, number, replace=False))


def _ranker(parts: Sequence[Rows]) -> Trees:
    rows, labels, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return fit_trees(rows, labels, RANKER, weights)


def _head(name: str, table: Table, how: Boosting, say: Say) -> tuple[Trees, float]:
    """Trees over all rows, and a threshold from rows that were scored by trees which the other folds taught."""
    rows, right = table.arrays()
    folds = np.array(table.folds)
    scores = np.zeros(len(rows), np.float32)
    for fold in range(NUM_FOLDS):
        scores[folds == fold] = fit_trees(rows[folds != fold], right[folds != fold], how).scores(rows[folds == fold])
    say(f"{name}: {len(rows):,} rows")
    for line in table.told(scores):
        say(f"{name}, each fold by what the others taught: {line}")
    return fit_trees(rows, right, how), table.threshold(scores)


def _best_cut(crossed: Sequence[AnswerModel], examples: Sequence[Example], shelf: Shelf) -> float:
    """The cut whose spans share most sentences with the right ones (F1, mean over examples)."""
    gains = dict.fromkeys(CUTS, 0.0)
    for example in thinned(examples, 500):
        sentences = shelf.of(example.text, example.title)
        right = right_sentences(sentences, example.spans)
        if not right.any():
            continue
        chances = Asking(crossed[example.fold]).ask(example.question, sentences).chances
        for cut in CUTS:
            start, end = best_run(chances, cut)
            gains[cut] += 2.0 * right[start:end].sum() / (right.sum() + end - start)
    return max(CUTS, key=lambda cut: gains[cut])
