"""Training the encoder's rows: gradients are right, partners come nearer, the same pairs give the same rows."""

import numpy as np
import pytest

from fineinstructions.embedded.contrastive import Source, Training, train_rows
from fineinstructions.embedded.pairs_of_texts import document_pairs, sources

HEALTH = "This condition has symptoms such as fever and pain and a rash that comes and goes for days. " * 2
RECIPE = "Mix flour with sugar and butter and bake the dough in a hot oven for twenty minutes or more. " * 2


def small_source(num_pairs: int) -> Source:
    """Pairs of texts over a vocabulary of their own: partners share a topic, but no word."""
    left = [np.array([k, 60], np.int32) for k in range(num_pairs)]
    right = [np.array([30 + k, 61], np.int32) for k in range(num_pairs)]
    ids = np.arange(num_pairs)
    return Source("titles", left, right, ids, ids, 1.0)


def start_rows() -> np.ndarray:
    return np.random.Generator(np.random.PCG64(3)).normal(size=(62, 16)).astype(np.float32)


def nearest(rows: np.ndarray, source: Source) -> float:
    left = np.stack([rows[text].sum(axis=0) for text in source.left])
    right = np.stack([rows[text].sum(axis=0) for text in source.right])
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return float(((left @ right.T).argmax(axis=1) == np.arange(len(left))).mean())


def test_partners_come_nearer_and_the_same_pairs_give_the_same_rows() -> None:
    source, rows, said = small_source(20), start_rows(), []
    how = Training(steps=120, batch=20, rate=0.05)
    trained = train_rows(rows, [source], how, said.append)
    assert nearest(trained, source) > 0.9 > nearest(rows, source)
    assert trained.tobytes() == train_rows(rows, [source], how, said.append).tobytes()
    assert any("titles" in line for line in said)


def test_a_step_follows_the_slope_of_the_loss() -> None:
    source, rows = small_source(8), start_rows()
    losses: list[str] = []
    for steps in (1, 40):
        train_rows(rows, [source], Training(steps=steps, batch=8), losses.append)
    first, last = (float(line.rpartition(" ")[2]) for line in (losses[0], losses[-1]))
    assert last < first


def test_no_pairs_are_refused() -> None:
    empty = Source("titles", [], [], np.zeros(0, np.int64), np.zeros(0, np.int64), 1.0)
    with pytest.raises(ValueError, match="no pairs"):
        train_rows(start_rows(), [empty], Training(steps=1), print)


def test_documents_give_pairs_of_every_kind() -> None:
    text = f"{HEALTH}\n\n## Symptoms\n\n{HEALTH}\n\n## Recipe\n\n{RECIPE}"
    pairs = document_pairs([("medicine", "Gout", text)])
    assert pairs["titles"][0][0] == "Gout"
    assert pairs["headings"][0][0] == "Gout Symptoms"
    assert pairs["descriptions"][0][0].startswith("A health page about a disease")
    assert "symptoms" in pairs["descriptions"][0][1]
    assert len(pairs["neighbours"]) == 1
    made = sources(pairs, lambda words: np.array([len(w) for w in words.split()], np.int32))
    assert {source.name: len(source.left) for source in made} == {name: len(texts) for name, texts in pairs.items()}
