"""Trees that rank the texts of a question, as the benchmark of retrieval learns them."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fineinstructions.embedded.answers.lexical import Bm25, content_stems
from fineinstructions.embedded.encoder import EmbeddedEncoder

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TEXTS = [
    "The king had a daughter. She wept bitterly. A golden bird sat in the tree and sang, and the king was glad.",
    "A poor youth went into the forest. He met a wolf. The wolf gave him a ring.",
    "The bird sang. The bird flew over the forest, over the king's castle and over the sea.",
    "In the castle lived a giant. He slept all day, and nobody dared to wake him.",
]

pytestmark = pytest.mark.extra


@pytest.fixture(scope="module")
def ranking() -> Any:
    pytest.importorskip("lightgbm")
    pytest.importorskip("scipy")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("learned_ranking")


def test_bm25_over_stems_is_the_one_of_the_package(ranking: Any) -> None:
    questions = ["Where did the golden bird of the king sing?", "Who met the wolf in the forest?", "What is it?"]
    stems = [content_stems(text) for text in TEXTS]
    found = ranking.bm25([content_stems(question) for question in questions], stems, 1.2, 0.75)
    search = Bm25(TEXTS)
    assert found.any()
    np.testing.assert_allclose(found, [search.scores(question) for question in questions], rtol=1e-5)
    doubled = ranking.bm25([["bird"], ["king"]], stems, 1.2, 0.75, {"bird": 2.0})
    np.testing.assert_allclose(doubled, [2.0 * search.scores("bird"), search.scores("king")], rtol=1e-5)


def test_the_likest_texts_share_rare_words_and_are_never_the_text_itself(ranking: Any) -> None:
    stems = [content_stems(text) for text in TEXTS]
    shares = ranking.likest([*stems, ["sea"], []])
    assert not np.diagonal(shares).any()
    np.testing.assert_allclose(shares.sum(axis=1), [1, 1, 1, 1, 1, 0], rtol=1e-5)
    assert shares[4].argmax() == 2
    many = ranking.likest([["a", f"b{n}", *("c" * (n % 3))] for n in range(40)])
    assert (np.count_nonzero(many, axis=1) >= ranking.LIKEST).all()
    assert np.count_nonzero(many) < many.size / 2


def test_the_best_sentences_may_lie_anywhere_and_lie_together(ranking: Any) -> None:
    far = "The bird sang. " + "It rained on and on. " * 6 + "The wolf slept."
    near = "It rained on and on. " * 6 + "The bird sang. The wolf slept."
    asked = [["bird", "wolf"], ["bird"]]
    found = ranking.best_sentences(asked, [far, near], {})
    assert found[0, 1] > 1.3 * found[0, 0] > 0.0
    assert found[1, 0] == pytest.approx(found[1, 1])
    assert ranking.best_sentences(asked, ["", near], {})[0, 0] == 0.0


def test_a_words_nearest_word_is_itself_where_it_stands(ranking: Any) -> None:
    encoder = EmbeddedEncoder()
    found = ranking.nearest_words(["the wolf?", "wolf and castle", "what is it"], [*TEXTS, ""], encoder, {"wolf": 3.0})
    assert found[0, 1] == pytest.approx(1.0, abs=1e-5)
    assert 0.0 < found[0, 2] < 0.95
    assert found[1, 3] < 1.0
    assert not found[2].any()
    assert not found[:, 4].any()


def rows_of(ranking: Any, generator: np.random.Generator, num: int, texts: int = 20) -> Any:
    """Questions whose right text has neither number high, but both alike; a sum of numbers cannot say so."""
    right = generator.integers(texts, size=num)
    question, text = np.repeat(np.arange(num), texts), np.tile(np.arange(texts), num)
    rows = generator.random((num * texts, 2))
    is_right = text == right[question]
    rows[is_right, 1] = rows[is_right, 0]
    rows = np.column_stack([rows, np.abs(rows[:, 0] - rows[:, 1])]).astype(np.float32)
    return ranking.Ranked(rows, question, text, right, (num, texts + 5))


def test_trees_find_what_they_were_taught_and_nothing_beyond_the_first_texts(ranking: Any) -> None:
    generator = np.random.Generator(np.random.PCG64(3))
    taught, asked = rows_of(ranking, generator, 150), rows_of(ranking, generator, 60)
    scores = ranking.LearnedRanking([taught]).scores(asked)
    assert scores.shape == (60, 25)
    assert np.isneginf(scores[:, 20:]).all()
    assert (scores.argmax(axis=1) == asked.right).mean() > 0.8
    np.testing.assert_array_equal(scores, ranking.LearnedRanking([taught]).scores(asked))


def test_no_question_is_scored_by_trees_that_learned_from_its_group(ranking: Any) -> None:
    generator = np.random.Generator(np.random.PCG64(4))
    pool = rows_of(ranking, generator, 120)
    groups = [f"story {number // 15}" for number in range(120)]
    (found,) = ranking.crossed([pool], [groups])
    fold = np.array([number // 15 % ranking.FOLDS for number in range(120)])
    for number in range(ranking.FOLDS):
        by_others = ranking.LearnedRanking([pool], [fold != number]).scores(pool)
        np.testing.assert_array_equal(found[fold == number], by_others[fold == number])


def test_the_first_texts_are_measured_in_values_gaps_and_ranks(ranking: Any) -> None:
    encoder = EmbeddedEncoder()
    questions = ["Who met a wolf?", "Where did the golden bird sing?"]
    fused = np.array([[0.1, 0.9, 0.3, 0.2], [1.0, 0.0, 0.5, 0.2]])
    candidates = ranking.Candidates(questions, TEXTS, fused, fused / 2.0, encoder, {})
    seen = ranking.ranked(candidates, np.array([1, 0]))
    assert seen.rows.shape == (8, 22)
    np.testing.assert_allclose(seen.rows[:, 1], fused.ravel(), rtol=1e-6)
    np.testing.assert_allclose(seen.rows[:4, 2], fused[0] - 0.9, rtol=1e-5)
    np.testing.assert_allclose(np.expm1(seen.rows[4:, 3]), [0, 3, 1, 2], rtol=1e-5)
    assert seen.is_right().nonzero()[0].tolist() == [1, 4]
    assert np.isfinite(seen.rows).all()


def test_a_kind_keeps_its_sum_where_trees_find_less_of_the_kept_back_questions(ranking: Any) -> None:
    bench, questions = (
        importlib.import_module("bench_embedded_retrieval"),
        importlib.import_module("labelled_questions"),
    )
    generator = np.random.Generator(np.random.PCG64(5))
    seen = [rows_of(ranking, generator, 120) for _ in range(4)]
    groups = [f"story {number % 10}" for number in range(120)]
    kinds = ["stories", "meetings", "stories", "meetings"]
    pools = [
        questions.Pool("", kind, [""] * 120, [""] * 25, rows.right, groups)
        for kind, rows in zip(kinds, seen, strict=True)
    ]
    useless = generator.random((120, 25))
    perfect = np.eye(25)[seen[1].right]
    labelled = questions.Labelled(pools[2:], pools[:2], [])
    kinds, crossed = bench._crossed(pools[:2], [useless, perfect], seen[:2])
    assert kinds == ["stories"]
    assert bench.recall(crossed[0], seen[0].right, 10) > 0.9 > 0.6 > bench.recall(useless, seen[0].right, 10)
    again = bench._by_trees(labelled, kinds, [useless, useless], seen[2:], seen[:2])
    assert again[1] is useless
    assert bench.recall(again[0], seen[2].right, 1) > 0.8
