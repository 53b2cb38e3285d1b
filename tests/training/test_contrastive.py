"""Training of a tiny real encoder: the loss on coverage chunks, what is saved, who can load it."""

from pathlib import Path

import numpy as np
import pytest
from silver_rows import embedder_rows
from tiny_encoders import WIDTH, WORDS, save_sentence_transformer, save_xlm_roberta

from fineinstructions.backends.encoder import EncoderConfig
from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.errors import ConfigError
from fineinstructions.pooling import Pooling
from fineinstructions.progress import SILENT
from fineinstructions.records import Rejection
from fineinstructions.training.contrastive import (
    TrainEmbedderConfig,
    TrainingPair,
    chunk_loss,
    fitting,
    load_embedder,
    train_embedder_round,
    triplets,
)

pytestmark = pytest.mark.extra
torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")
pytest.importorskip("datasets")

PAIRS = [TrainingPair(r.row_id, r.document, r.description, r.label, r.chunk) for r in embedder_rows()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_xlm_roberta(tmp_path_factory.mktemp("encoder") / "plain", contextual=False)


def settings(folder: Path, **changes: object) -> TrainEmbedderConfig:
    given = {"data": "", "model": str(folder), "epochs": 4, "lr": 5e-3, "pairs_per_step": 8, "micro_batch": 8}
    return TrainEmbedderConfig(**{**given, **changes})


def test_the_loss_is_that_of_the_cosines_that_matching_computes(folder: Path) -> None:
    from fineinstructions.backends.sentence_encoder import SentenceEncoder

    model, pooling, encoder = load_embedder(ModelFolder(str(folder)), None), Pooling(), _encoder(folder)
    assert isinstance(encoder, SentenceEncoder)
    pairs = [*PAIRS[:7], TrainingPair("whole", PAIRS[0].document, PAIRS[1].description, 0.5, -1)]
    vectors = encoder.encode_documents([p.document for p in pairs], pooling)
    others = encoder.encode_texts([p.description for p in pairs])
    cosines = [float(v.vectors[p.chunk] @ o) for p, v, o in zip(pairs, vectors, others, strict=True)]
    expected = np.mean([(cosine - p.label) ** 2 for cosine, p in zip(cosines, pairs, strict=True)])
    features = [model.preprocess([getattr(p, name) for p in pairs]) for name in ("document", "description")]
    labels = torch.tensor([[p.label, float(p.chunk)] for p in pairs])
    loss = chunk_loss(model.eval(), pooling)(features, labels).double()
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "pooler" not in n)


def _encoder(folder: Path) -> object:
    from fineinstructions.backends.sentence_encoder import SentenceEncoder

    return SentenceEncoder(EncoderConfig(model=str(folder)))


@pytest.mark.parametrize(
    ("kind", "loss"), [("document", "cosine"), ("chunk", "cosine"), ("document", "ranking")], ids=str
)
def test_a_saved_encoder_is_the_trained_one_for_everybody(folder: Path, tmp_path: Path, kind: str, loss: str) -> None:
    from sentence_transformers import SentenceTransformer

    config = settings(folder, loss=loss)
    model = load_embedder(ModelFolder(str(folder)), None)
    figures = train_embedder_round(kind, PAIRS, PAIRS[:9], model, config, tmp_path, SILENT)  # type: ignore[arg-type]
    assert figures.held_out_after is not None and figures.held_out_before is not None
    assert figures.held_out_after < figures.held_out_before
    texts = [PAIRS[0].document, PAIRS[1].description, WORDS[7]]
    trained = model.encode(texts)
    stock = SentenceTransformer(str(tmp_path / "model"), device="cpu", trust_remote_code=False).encode(texts)
    ours = _encoder(tmp_path / "model")
    pooled = ours.encode_documents(texts, Pooling())  # type: ignore[attr-defined]
    assert np.abs(stock - trained).max() < 1e-6
    assert np.abs(ours.encode_texts(texts) - stock).max() < 1e-5  # type: ignore[attr-defined]
    assert np.abs(np.array([document.vectors[-1] for document in pooled]) - stock).max() < 1e-5
    assert [document.vectors.shape for document in pooled] == [(6, WIDTH)] * 3


def test_pairs_that_cannot_be_learned_are_set_aside(folder: Path) -> None:
    model = load_embedder(ModelFolder(str(folder)), 32)
    pairs = [
        TrainingPair("long", " ".join(WORDS[:31]), "word1", 1.0, 0),
        TrainingPair("fits", " ".join(WORDS[:30]), "word1", 1.0, 0),
        TrainingPair("chunk", "word1", "word2", 1.0, 5),
    ]
    found = list(fitting(model, pairs, Pooling()))
    aside = [(item.record_id, item.reason, item.value) for item in found if isinstance(item, Rejection)]
    assert aside == [("long", "too_long", 33.0), ("chunk", "no_such_chunk", 5.0)]
    assert found[1] == pairs[1]


def test_every_pair_of_a_document_with_both_kinds_is_in_a_triplet() -> None:
    pairs = [
        TrainingPair("a", "d", "good one", 1.0, 0),
        TrainingPair("b", "d", "good two", 1.0, 0),
        TrainingPair("c", "d", "bad", 0.0, 0),
        TrainingPair("e", "alone", "good", 1.0, 0),
    ]
    assert triplets(pairs) == ([("d", "good one", "bad"), ("d", "good two", "bad")], ["e"])


def test_layers_behind_the_pooling_are_refused(folder: Path, tmp_path: Path) -> None:
    dense = save_sentence_transformer(tmp_path / "dense", folder, dense=8)
    with pytest.raises(ConfigError, match=r"recipe\.model: .* has Dense behind its pooling"):
        load_embedder(ModelFolder(str(dense), section="recipe"), None)
