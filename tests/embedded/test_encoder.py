import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_inputs import EXAMPLES

from fineinstructions.embedded.descriptions import describe
from fineinstructions.embedded.encoder import EmbeddedEncoder, token_key
from fineinstructions.embedded.learn_encoder import learn_encoder, passages, quantised
from fineinstructions.pooling import Pooling


@pytest.fixture(scope="module")
def encoder() -> EmbeddedEncoder:
    return EmbeddedEncoder()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=80), min_size=1, max_size=6))
def test_the_batch_never_changes_a_bit(encoder: EmbeddedEncoder, texts: list[str]) -> None:
    together = encoder.encode_texts(texts)
    assert together.shape == (len(texts), encoder.dimension)
    assert together.dtype == np.float32
    for row, text in zip(together, texts, strict=True):
        assert row.tobytes() == encoder.encode_texts([text])[0].tobytes()
        norm = np.linalg.norm(row.astype(np.float64))
        assert norm == 0.0 or abs(norm - 1.0) < 1e-5
    for alone, batched in zip(
        [encoder.encode_tokens([t])[0] for t in texts], encoder.encode_tokens(texts), strict=True
    ):
        assert alone.vectors.tobytes() == batched.vectors.tobytes()
        assert alone.spans.tobytes() == batched.spans.tobytes()


def test_a_text_is_the_mean_of_its_tokens(encoder: EmbeddedEncoder) -> None:
    text = "The symptoms of the disease are fever, pain and a rash; it was first described in 1885."
    tokens = encoder.encode_tokens([text])[0]
    mean = tokens.vectors.mean(axis=0)
    assert np.allclose(mean / np.linalg.norm(mean), encoder.encode_texts([text])[0], atol=1e-5)
    assert [text[a:b] for a, b in tokens.spans][:3] == ["The", "symptoms", "of"]
    assert text[slice(*tokens.spans[-1])].startswith("1885")


def test_empty_and_unknown_texts_are_zero(encoder: EmbeddedEncoder) -> None:
    assert not encoder.encode_texts(["", " ?! "]).any()
    tokens = encoder.encode_tokens([""])[0]
    assert tokens.vectors.shape == (0, encoder.dimension)
    assert tokens.spans.shape == (0, 2)


def test_words_beyond_the_window_are_cut_off(encoder: EmbeddedEncoder) -> None:
    text = "word " * (encoder.window_tokens + 5)
    assert len(encoder.encode_tokens([text])[0].vectors) == encoder.window_tokens


@pytest.mark.parametrize(
    ("passage", "frame", "kinds", "others"),
    [
        (
            "Common signs are fever, fatigue, nausea and swelling of the joints.",
            "what are symptoms of _",
            ("a disease",),
            [("who founded _", ("an organisation",)), ("what are ingredients of _", ("a food or dish",))],
        ),
        (
            "2 cups of flour, 1 tablespoon of sugar, 100 grams of butter, a pinch of salt.",
            "what are ingredients of _",
            ("a food or dish",),
            [("what are symptoms of _", ("a disease",)), ("when did _ die", ("a person",))],
        ),
        (
            "The college was founded in 1869 by a group of teachers and formally established in 1871.",
            "when was _ founded",
            ("an organisation",),
            [("what is treatment for _", ("a disease",)), ("who played _ in _", ("a character", "a film or show"))],
        ),
        (
            "The cmdlet gets the items at the given path and returns objects to the pipeline.",
            "what does command _ do",
            ("a command",),
            [("where was _ born", ("a person",)), ("what is climate of _", ("a place",))],
        ),
    ],
)
def test_a_passage_is_nearest_to_the_description_that_asks_for_it(
    encoder: EmbeddedEncoder,
    passage: str,
    frame: str,
    kinds: tuple[str, ...],
    others: list[tuple[str, tuple[str, ...]]],
) -> None:
    vectors = encoder.encode_texts([passage, describe(frame, kinds), *(describe(f, k) for f, k in others)])
    cosines = vectors[1:] @ vectors[0]
    assert cosines[0] > cosines[1:].max()


@pytest.mark.parametrize(
    ("frame", "kind", "heading", "domain"),
    [
        ("what are symptoms of _", "a disease", r"^#+ .*symptom", "medicine"),
        ("what are treatments for _", "a disease", r"^#+ .*treatment", "medicine"),
        ("what are ingredients of _", "a food or dish", r"ingredients", "recipes"),
    ],
)
def test_the_threshold_lets_pages_through_that_answer(
    encoder: EmbeddedEncoder, frame: str, kind: str, heading: str, domain: str
) -> None:
    rows = pq.read_table(EXAMPLES / "documents.parquet", columns=["text", "domain"]).to_pylist()
    query = encoder.encode_texts([describe(frame, (kind,))])[0]
    documents = encoder.encode_documents([row["text"] for row in rows], Pooling())
    is_near = np.array([(document.vectors @ query).max() >= encoder.min_cosine for document in documents])
    is_about = np.array([row["domain"] == domain for row in rows])
    answers = is_about & [bool(re.search(heading, row["text"], re.IGNORECASE | re.MULTILINE)) for row in rows]
    assert is_near[answers].mean() > 0.6
    assert is_near[~is_about].mean() < 0.05


def test_settings_belong_to_the_data(encoder: EmbeddedEncoder) -> None:
    assert encoder.encoder_id.startswith("embedded-static-")
    assert 0.0 < encoder.min_cosine < 1.0
    assert EmbeddedEncoder().encoder_id == encoder.encoder_id


def test_learning_is_deterministic_and_groups_words_that_share_passages() -> None:
    pytest.importorskip("scipy")
    texts = [
        "# A\n\n## Symptoms\n\nfever pain rash fever pain",
        "# B\n\n## Ingredients\n\nflour sugar butter flour",
    ] * 40
    corpus = [p for t in texts for p in passages("", t)]
    first, second = (learn_encoder(corpus, [], dimensions=3) for _ in range(2))
    assert first.keys == second.keys
    assert first.vectors.tobytes() == second.vectors.tobytes()
    row = {key: vector / np.linalg.norm(vector) for key, vector in zip(first.keys, first.vectors, strict=True)}
    fever, pain, flour = (row[token_key(w)] for w in ("fever", "pain", "flour"))
    assert fever @ pain > fever @ flour
    values, scales = quantised(first.vectors)
    assert np.abs(values * scales - first.vectors).max() <= scales.max()
