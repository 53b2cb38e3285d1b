"""Sentence encoders: real tiny models, held against the library's own mean pooling and NumPy's coverage pooling."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_encoders
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_encoders import WIDTH, WINDOW, WORDS

from fineinstructions.backends import sentence_encoder
from fineinstructions.backends.encoder import EncoderConfig
from fineinstructions.backends.encoders import open_encoder
from fineinstructions.backends.llm_config import LlmConfig
from fineinstructions.backends.model_folder import AUTHORS_ENCODER, CALIBRATION_FILE, ModelFolder
from fineinstructions.backends.sentence_encoder import SentenceEncoder
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.matches.chunk import ChunkConfig, chunk
from fineinstructions.pooling import Pooling, pool
from fineinstructions.records import Document

pytestmark = [pytest.mark.extra, pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("torch")]
pytest.importorskip("sentence_transformers", reason="needs the extra [embed]")

POOLING = Pooling()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "xlm-roberta": tiny_encoders.save_xlm_roberta(folder / "xlm-roberta"),
        "bert": tiny_encoders.save_bert(folder / "bert"),
    }


@pytest.fixture(scope="module")
def saved(plain: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentenceTransformer that pools its first token, as BGE-M3 does."""
    return tiny_encoders.save_sentence_transformer(tmp_path_factory.mktemp("st"), plain["xlm-roberta"], pooling="cls")


def encoder(folder: Path, **settings: Any) -> SentenceEncoder:
    return SentenceEncoder(EncoderConfig(model=str(folder), **settings))


def words(number: int, seed: int = 0) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, number))


def hidden_states(model: SentenceEncoder, text: str) -> np.ndarray:
    """Token vectors of one text, special tokens included, from transformers itself."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = model._config.model
    with torch.inference_mode():
        read = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
        ids, mask = read["input_ids"], read["attention_mask"]
        states = AutoModel.from_pretrained(folder, dtype=torch.float32)(input_ids=ids, attention_mask=mask)
    return states.last_hidden_state[0].numpy()


@pytest.mark.parametrize("name", ["xlm-roberta", "bert"])
@pytest.mark.parametrize("specials", [True, False])
def test_vectors_are_pooled_token_vectors(plain: dict[str, Path], name: str, specials: bool) -> None:
    model = encoder(plain[name], special_tokens=specials)
    for text in (words(20), "word1", words(7, seed=3)):
        states = hidden_states(model, text)
        states = states if specials else states[1:-1]
        (found,) = model.encode_documents([text], Pooling(4, 0.1, 0.8, "linspace"))
        np.testing.assert_allclose(found.vectors, pool(states, 4, 0.1, 0.8, "linspace"), atol=1e-5)
        np.testing.assert_allclose(model.encode_texts([text])[0], found.vectors[-1], atol=1e-6)
        assert len(found.token_starts) == len(states)
        assert np.all(np.diff(found.token_starts) >= 0)
        assert 0 <= found.token_starts[0] <= found.token_starts[-1] <= len(text)


def test_a_description_is_what_stock_mean_pooling_gives(plain: dict[str, Path], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tiny_encoders.save_sentence_transformer(tmp_path / "st", plain["xlm-roberta"], pooling="mean")
    texts = [words(n, seed=n) for n in (1, 40, 3, 17)]
    stock = SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(encoder(folder).encode_texts(texts), stock, atol=1e-5)


def test_the_first_token_is_not_the_vector_whatever_the_model_names(plain: dict[str, Path], saved: Path) -> None:
    text = words(12)
    expected = encoder(plain["xlm-roberta"]).encode_texts([text])
    np.testing.assert_allclose(encoder(saved).encode_texts([text]), expected, atol=1e-6)


def test_a_foreign_pooling_is_replaced_and_its_code_not_run(saved: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tiny_encoders.name_a_foreign_class(shutil.copytree(saved, tmp_path / "foreign"))
    with pytest.raises(ValueError, match="trust_remote_code"):
        SentenceTransformer(str(folder), device="cpu")
    text = words(30)
    (found,) = encoder(folder).encode_documents([text], POOLING)
    (expected,) = encoder(saved).encode_documents([text], POOLING)
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    tiny_encoders.name_a_foreign_class(folder, "their.Reranker")
    with pytest.raises(ConfigError, match=r"a module their\.Reranker"):
        encoder(folder).encode_texts([text])


def test_a_dense_layer_stands_behind_every_pooled_vector(plain: dict[str, Path], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tiny_encoders.save_sentence_transformer(tmp_path / "dense", plain["bert"], dense=12)
    texts = [words(9), words(2, seed=5)]
    model = encoder(folder)
    assert model.dimension == 12
    np.testing.assert_allclose(model.encode_texts(texts), SentenceTransformer(str(folder)).encode(texts), atol=1e-5)
    (first, _) = model.encode_documents(texts, POOLING)
    assert first.vectors.shape == (6, 12)
    np.testing.assert_allclose(np.linalg.norm(first.vectors, axis=1), 1.0, atol=1e-5)


def test_company_changes_little_and_the_same_call_nothing(plain: dict[str, Path]) -> None:
    texts = [words(n, seed=n) for n in (1, 2, 5, 30, 31, 60, 90, 400)] + ["", " \n"]
    model = encoder(plain["xlm-roberta"], batch_tokens=150)
    together, again = (model.encode_documents(texts, POOLING) for _ in range(2))
    other_way = model.encode_documents(texts[::-1], POOLING)[::-1]
    for text, one, two, three in zip(texts, together, again, other_way, strict=True):
        (alone,) = model.encode_documents([text], POOLING)
        assert one.vectors.tobytes() == two.vectors.tobytes()
        assert one.vectors.dtype == np.float32
        np.testing.assert_array_equal(one.token_starts, alone.token_starts)
        for found in (alone, three):
            np.testing.assert_allclose(one.vectors, found.vectors, atol=2e-6)


def test_the_number_of_threads_changes_no_bit(plain: dict[str, Path]) -> None:
    import torch

    texts = [words(n, seed=n) for n in (60, 30, 5)]
    model = encoder(plain["bert"])
    one = model.encode_texts(texts)
    torch.set_num_threads(4)
    try:
        assert model.encode_texts(texts).tobytes() == one.tobytes()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("specials", [True, False])
def test_long_documents_are_read_window_by_window_and_pooled_as_one(plain: dict[str, Path], specials: bool) -> None:
    """Windows encoded one by one by hand; the tokens that open and close inner windows have no weight."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    text = words(150)
    tokenizer = AutoTokenizer.from_pretrained(plain["xlm-roberta"])
    model = AutoModel.from_pretrained(plain["xlm-roberta"], dtype=torch.float32).eval()
    own = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(own) > 2 * WINDOW
    states, room = [], 40 - 2
    for start in range(0, len(own), room):
        with torch.inference_mode():
            ids = torch.tensor([[0, *own[start : start + room], 2]])
            hidden = model(input_ids=ids).last_hidden_state[0].numpy()
        opens, closes = start == 0 and specials, start + room >= len(own) and specials
        states.append(hidden[0 if opens else 1 : None if closes else -1])
    (found,) = encoder(plain["xlm-roberta"], special_tokens=specials, window_tokens=40).encode_documents(
        [text], POOLING
    )
    everything = np.concatenate(states)
    assert len(found.token_starts) == len(everything) == len(own) + 2 * specials
    np.testing.assert_allclose(found.vectors, pool(everything, 5, 0.05, 1.0), atol=1e-5)
    starts = found.token_starts[1:-1] if specials else found.token_starts
    assert [text[s : s + 4] for s in starts[:2]] in (["word", "word"], ["word", " wor"])


def test_texts_are_tokenised_in_pieces_that_lose_nothing(
    plain: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, text = encoder(plain["bert"]), words(300)
    (whole,) = model.encode_documents([text], POOLING)
    monkeypatch.setattr(sentence_encoder, "_PIECE_CHARS", 200)
    (cut,) = model.encode_documents([text], POOLING)
    np.testing.assert_array_equal(cut.token_starts, whole.token_starts)
    np.testing.assert_array_equal(cut.vectors, whole.vectors)


def test_awkward_texts(plain: dict[str, Path]) -> None:
    texts = ["", " \n", "\x00", "half \ud83d pair", "e\u0301 中文 \U0001f469\u200d\U0001f52c", "x" * 3000]
    for folder in plain.values():
        found = encoder(folder).encode_documents(texts, POOLING)
        assert [len(f.token_starts) for f in found[:1]] == [0]
        for text, one in zip(texts, found, strict=True):
            assert one.vectors.shape == (6, WIDTH)
            assert np.isfinite(one.vectors).all()
            assert not len(one.token_starts) or one.token_starts[-1] <= len(text)
        assert encoder(folder).encode_texts(["", "word1"]).any(axis=1).tolist() == [False, True]


@pytest.mark.parametrize("window_tokens", [None, 24])
def test_moving_a_passage_moves_the_best_chunk(tmp_path: Path, window_tokens: int | None) -> None:
    """Acceptance check 2 of method.md on an encoder with windows; its weights are small, so that words keep apart."""
    passage = "penguins incubate eggs upon antarctic ice"
    model = encoder(tiny_encoders.save_xlm_roberta(tmp_path, [passage], contextual=False), window_tokens=window_tokens)
    query = model.encode_texts([passage])[0]
    filler = words(240, seed=1).split()
    best, positions = [], []
    for place in range(0, 210, 15):
        text = " ".join([*filler[:place], *[passage] * 4, *filler[place:]])
        (found,) = chunk([Document("d", text)], model, ChunkConfig())
        number = int(np.argmax(found.vectors[:-1] @ query))
        best.append(sum(found.span(number)) / 2 / len(text))
        positions.append((text.index(passage) + len(passage) * 2) / len(text))
    assert np.corrcoef(positions, best)[0, 1] > 0.9


def test_the_id_tells_everything_that_decides_vectors(plain: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(plain["bert"], tmp_path / "moved")
    first = encoder(folder).encoder_id
    assert first == encoder(plain["bert"]).encoder_id == encoder(folder, batch_tokens=10).encoder_id
    (folder / CALIBRATION_FILE).write_text('{"min_cosine": 0.7}', encoding="utf-8")
    assert encoder(folder).encoder_id == first
    others = [{"dtype": "bfloat16"}, {"window_tokens": 32}, {"special_tokens": False}]
    assert len({first, *(encoder(folder, **s).encoder_id for s in others)}) == 4
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    assert encoder(folder).encoder_id != first
    hub = SentenceEncoder(EncoderConfig(model="BAAI/bge-m3", revision="5617a9f"))
    assert hub.encoder_id.startswith("BAAI/bge-m3@5617a9f ")


def test_bfloat16_is_near(plain: dict[str, Path]) -> None:
    texts = [words(30), words(5)]
    exact, near = (encoder(plain["bert"], dtype=d).encode_texts(texts) for d in ("float32", "bfloat16"))
    assert 0 < np.abs(exact - near).max() < 0.05


def test_thresholds(plain: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(plain["bert"], tmp_path / "model")
    assert encoder(folder).min_cosine is None
    path = folder / CALIBRATION_FILE
    path.write_text('{"min_cosine": 0.7, "found_on": "1,000 documents"}', encoding="utf-8")
    assert encoder(folder).min_cosine == 0.7
    for wrong in ('{"min_cosine": "0.7"}', '{"min_cosine": 7}', "[]", "{}", '{"min_cosine": true}'):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(ConfigError, match="min_cosine"):
            encoder(folder).min_cosine  # noqa: B018
    assert ModelFolder(AUTHORS_ENCODER, "1.0").min_cosine == 0.865
    assert ModelFolder("BAAI/bge-m3", "1.0").min_cosine is None


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("BAAI/bge-m3", {}, r"encoder\.revision: missing; BAAI/bge-m3 is no folder"),
        ("BAAI/bge-m3", {"revision": "main"}, r"encoder\.revision: 'main' moves"),
        ("./nowhere", {}, r"there is no folder \./nowhere"),
        ("a/b/c", {}, "there is no folder a/b/c"),
        ("FOLDER", {"revision": "v1"}, "is a folder, which has none"),
        ("FOLDER", {"device": "warp"}, r"encoder\.device: 'warp' is none"),
        ("FOLDER", {"window_tokens": 4000}, "reads at most 64 at once"),
        ("FOLDER", {"window_tokens": 4}, "at least 10"),
    ],
)
def test_wrong_settings_are_one_line(plain: dict[str, Path], model: str, settings: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        found = SentenceEncoder(EncoderConfig(model=model.replace("FOLDER", str(plain["bert"])), **settings))
        assert found.encoder_id
        found.encode_texts(["word1"])
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there(plain: dict[str, Path]) -> None:
    import torch

    if torch.cuda.is_available():
        assert "bfloat16" in encoder(plain["bert"]).encoder_id
        return
    assert "float32" in encoder(plain["bert"]).encoder_id
    with pytest.raises(ConfigError, match=r"encoder\.device: cuda, but no CUDA GPU"):
        encoder(plain["bert"], device="cuda").encoder_id  # noqa: B018


def damaged(folder: Path, kind: str) -> Path:
    if kind == "no weights":
        (folder / "model.safetensors").unlink()
    elif kind == "cut weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    elif kind == "config":
        (folder / "config.json").write_text("{", encoding="utf-8")
    elif kind == "other architecture":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    elif kind == "modules":
        (folder / "modules.json").write_text("[]", encoding="utf-8")
    elif kind == "static":
        (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.StaticEmbedding"}]')
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no weights", "cannot be loaded"),
        ("cut weights", "cannot be loaded"),
        ("config", "cannot be loaded"),
        ("other architecture", r"has no weights for encoder\.layer\.2"),
        ("modules", r"modules\.json lists no modules"),
        ("static", "is no transformer encoder"),
    ],
)
def test_damaged_models_are_one_line(plain: dict[str, Path], tmp_path: Path, kind: str, message: str) -> None:
    folder = damaged(shutil.copytree(plain["bert"], tmp_path / "model"), kind)
    with pytest.raises(ConfigError, match=message) as caught:
        encoder(folder).encode_texts(["word1"])
    assert "\n" not in str(caught.value)


def test_numbers_that_are_not_finite_are_told(plain: dict[str, Path], tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    folder = shutil.copytree(plain["bert"], tmp_path / "model")
    model = AutoModel.from_pretrained(folder)
    model.encoder.layer[1].output.dense.weight.data[0, 0] = torch.nan
    model.save_pretrained(folder)
    with pytest.raises(BackendError, match="not finite"):
        encoder(folder).encode_texts(["word1"])


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="the hub cannot be reached; give the folder of a model"):
        SentenceEncoder(EncoderConfig(model="nobody/nothing", revision="1.0")).encode_texts(["x"])


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_encoder, "_PACKAGES", ("torch", "a_package_that_is_not_there"))
    with pytest.raises(ConfigError, match=r"needs a-package-that-is-not-there; run pip install 'fineinstructions\[em"):
        open_encoder(EncoderConfig(model="BAAI/bge-m3", revision="x"), LlmConfig())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(1, 8), st.floats(0.01, 2.0), st.floats(0.0, 1.0),
    st.sampled_from(["midpoint", "linspace"]), st.booleans(), st.integers(0, 9), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_pooling_in_torch_equals_numpy(lengths, chunks, sigma, alpha, centres, pads_left, padding, seed) -> None:
    import torch

    from fineinstructions.backends.torch_pooling import pool_padded

    pooling = Pooling(chunks, sigma, alpha, centres)
    random = np.random.default_rng(seed)
    texts = [random.standard_normal((n, 16)).astype(np.float32) + 0.2 for n in lengths]
    total = max(lengths) + padding
    hidden = np.full((len(texts), total, 16), 7.0, np.float32)
    mask = np.zeros((len(texts), total), np.int64)
    for number, text in enumerate(texts):
        place = slice(total - len(text), total) if pads_left else slice(0, len(text))
        hidden[number, place], mask[number, place] = text, 1
    found = pool_padded(torch.from_numpy(hidden), torch.from_numpy(mask), pooling).numpy()
    for one, text in zip(found, texts, strict=True):
        np.testing.assert_allclose(one, pooling.pool(text), atol=1e-5)


def test_gradients_flow_through_the_pooling() -> None:
    import torch

    from fineinstructions.backends.torch_pooling import pool_padded

    hidden = torch.randn(2, 9, 4, dtype=torch.bfloat16, requires_grad=True)
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    pool_padded(hidden, mask, POOLING)[..., 0].sum().backward()
    assert hidden.grad is not None
    assert bool(hidden.grad[0].any())
    assert not bool(hidden.grad[1, 5:].any())
    with pytest.raises(ValueError, match="num_tokens"):
        pool_padded(hidden, torch.zeros(2, 9), POOLING)
