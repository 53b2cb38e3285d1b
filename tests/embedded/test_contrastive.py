"""Training the encoder's rows: gradients are right, partners come nearer, the same pairs give the same rows."""

from dataclasses import replace

import numpy as np
import pytest

from fineinstructions.embedded.contrastive import Source, Training, train_rows
from fineinstructions.embedded.pairs_of_texts import (
    Pair,
    description_pairs,
    document_pairs,
    is_kept_back,
    sources,
)

HEALTH = "This condition has symptoms such as fever and pain and a rash that comes and goes for days. " * 2
RECIPE = "Mix flour with sugar and butter and bake the dough in a hot oven for twenty minutes or more. " * 2

pytest.importorskip("scipy")


def small_source(num_pairs: int) -> Source:
    """Pairs of texts over a vocabulary of their own: partners share a topic, but no word."""
    left = [np.array([k, 60], np.int32) for k in range(num_pairs)]
    right = [np.array([30 + k, 61], np.int32) for k in range(num_pairs)]
    ids = np.arange(num_pairs)
    return Source("titles", left, right, ids, ids, ids // 3, 1.0)


def start_rows() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(3)).normal(size=(62, 16)).astype(np.float32)


def units(rows: np.ndarray, texts: list[np.ndarray]) -> np.ndarray:
    sums = np.stack([rows[text].sum(axis=0) for text in texts])
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def nearest(rows: np.ndarray, source: Source) -> float:
    cosines = units(rows, list(source.left)) @ units(rows, list(source.right)).T
    return float((cosines.argmax(axis=1) == np.arange(len(cosines))).mean())


def test_partners_come_nearer_and_the_same_pairs_give_the_same_rows() -> None:
    source, rows, said = small_source(20), start_rows(), []
    how = Training(steps=120, batch=20, rate=0.05)
    trained = train_rows(rows, [source], how, said.append)
    assert nearest(trained, source) > 0.9 > nearest(rows, source)
    assert trained.tobytes() == train_rows(rows, [source], how, said.append).tobytes()
    assert any("titles" in line for line in said)


def test_a_step_follows_the_slope_of_the_loss() -> None:
    """A short step lowers the loss of its batch, computed anew, by about the rate times the slope along it."""
    source, rows = small_source(8), start_rows()
    rows /= np.linalg.norm(rows, axis=1).mean()

    def loss(table: np.ndarray) -> float:
        logits = 20.0 * units(table.astype(float), list(source.left)) @ units(table, list(source.right)).T
        rowwise = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        columnwise = logits - np.log(np.exp(logits).sum(axis=0, keepdims=True))
        return float(-0.5 * (np.diag(rowwise) + np.diag(columnwise)).mean())

    moved = train_rows(rows, [source], Training(steps=1, batch=8, rate=1e-3), lambda _: None) - rows
    slope = np.zeros_like(moved, float)
    for place in np.ndindex(rows.shape):
        step = np.zeros_like(rows, float)
        step[place] = 1e-4
        slope[place] = (loss(rows + step) - loss(rows - step)) / 2e-4
    expected = -1e-3 * slope / np.sqrt(1e-3 + np.square(slope).mean(axis=1, keepdims=True))
    assert np.allclose(moved, expected, atol=1e-5)


def test_texts_that_answer_a_description_too_do_not_compete() -> None:
    """Two descriptions and four pages, of which one answers both: it is pushed away from neither."""
    left = [np.array([k], np.int32) for k in (0, 1, 0, 1)]
    right = [np.array([k], np.int32) for k in (10, 11, 12, 12)]
    fits = np.array([[True, False], [False, True], [True, True], [True, True]])
    ids = np.array([0, 1, 0, 1])
    source = Source("descriptions of pages", left, right, ids, np.array([0, 1, 2, 2]), ids, 1.0, fits)
    rows, how = start_rows(), Training(steps=300, batch=4, rate=0.05)

    def of_both(table: np.ndarray) -> np.ndarray:
        cosines = units(table, left[:2]) @ units(table, right[:3]).T
        assert cosines[0, 0] > cosines[0, 1]
        assert cosines[1, 1] > cosines[1, 0]
        return cosines[:, 2]

    masked = of_both(train_rows(rows, [source], how, lambda _: None))
    competing = replace(source, fits=np.eye(2, dtype=bool)[ids], right_id=np.arange(4))
    assert masked.min() >= of_both(train_rows(rows, [competing], how, lambda _: None)).min()


def test_no_pairs_are_refused() -> None:
    none = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="no pairs"):
        train_rows(start_rows(), [Source("titles", [], [], none, none, none, 1.0)], Training(steps=1), print)


def counted(words: str) -> np.ndarray:
    return np.array([len(w) for w in words.split()], np.int32)


def test_documents_give_pairs_of_every_kind() -> None:
    text = f"{HEALTH}\n\n## Symptoms\n\n{HEALTH}{RECIPE}{HEALTH}\n\n## Recipe\n\n{RECIPE}"
    pages = [("g", "medicine", "Gout", text), ("p", "medicine", "Pox", text)]
    pairs = document_pairs(pages)
    assert pairs["titles"][0].left == "Gout"
    assert pairs["headings"][0].left == "Gout Symptoms"
    assert {pair.group for pair in pairs["sentences"]} == {"g", "p"}
    for pair in pairs["sentences"]:
        assert set(pair.left.split()) <= set(text.split())
    assert document_pairs(pages) == pairs
    made = sources(pairs, counted)
    assert {source.name: len(source.left) for source in made} == {name: len(texts) for name, texts in pairs.items()}


def test_a_page_is_told_with_all_that_it_answers() -> None:
    page = f"## Symptoms\n\n{HEALTH}\n\n## Treatment\n\n{HEALTH}"
    kept = next(f"k-{k}" for k in range(100) if is_kept_back(f"k-{k}"))
    left = next(f"l-{k}" for k in range(100) if not is_kept_back(f"l-{k}"))
    rows = [
        {
            "doc_id": name,
            "question_template": f"What are the {kind} of {{focus}}?",
            "question_type": kind,
            "answer": "a",
        }
        for name in (kept, left)
        for kind in ("symptoms", "treatments")
    ]
    pairs = description_pairs(rows, [(name, "medicine", "Gout", page) for name in (kept, left, "other")])
    of_pages = pairs["descriptions of pages"]
    assert [(p.group, p.asks) for p in of_pages] == [
        (name, asks) for name in (left, "other") for asks in (("symptom",), ("treatment",))
    ]
    assert {p.tells for p in of_pages} == {frozenset({("symptom",), ("treatment",)})}
    assert of_pages[0].left == "A health page about a disease or medical condition that lists the symptoms and signs."
    assert all(p.tells == {p.asks} for p in pairs["descriptions of sections"])
    (source,) = sources({"descriptions of pages": of_pages}, counted)
    assert source.fits is not None
    assert source.fits.all()
    lone = Pair("x y", "z z", "g", ("cause",), frozenset({("cause",)}))
    (source,) = sources({"descriptions of pages": [*of_pages, lone]}, counted)
    assert source.fits is not None
    assert source.fits.sum(axis=1).tolist() == [2, 2, 2, 2, 1]
