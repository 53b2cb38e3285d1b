"""Chunks: spans that cover the text, windows that lose no token, and where a relevant passage is found."""

from itertools import pairwise

import numpy as np
import pytest
from hashed_encoder import HashedEncoder
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.backends import windows
from fineinstructions.matches.chunk import ChunkConfig, ChunkedDocument, chunk
from fineinstructions.pooling import pool
from fineinstructions.records import GLOBAL_CHUNK, Document, Rejection

FILLER = [f"word{i}" for i in range(2000)]
PASSAGE = """Penguins incubate a single egg upon their feet throughout the antarctic winter; penguins huddle against the
wind, and the egg never touches the ice until penguins return from the sea to feed the chick through antarctic spring"""


def document(text: str, name: str = "d") -> Document:
    return Document(document_id=name, text=text)


def chunked(text: str, encoder: HashedEncoder | None = None, **settings) -> ChunkedDocument:
    (found,) = chunk([document(text)], encoder or HashedEncoder(), ChunkConfig(**settings))
    assert isinstance(found, ChunkedDocument)
    return found


def filler(count: int, seed: int = 0) -> list[str]:
    return np.random.default_rng(seed).choice(FILLER, count).tolist()


texts = st.text(alphabet=st.sampled_from("ab \n.é中x"), max_size=120)


@given(texts, st.integers(1, 12), st.sampled_from(["midpoint", "linspace"]))
def test_spans_cover_the_text_without_gap_or_overlap(text, count, centres):
    config = ChunkConfig(coverage_chunks=count, centres=centres)
    (found,) = chunk([document(text)], HashedEncoder(), config)
    if isinstance(found, Rejection):
        assert not any(c.isalnum() for c in text)
        return
    spans = found.chunk_spans
    assert len(spans) == count
    assert found.vectors.shape == (count + 1, HashedEncoder.dimension)
    if found.num_tokens < count:
        assert set(spans) == {(0, len(text))}
        return
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    for (_, end), (start, _) in pairwise(spans):
        assert end == start
    assert all(any(c.isalnum() for c in text[start:end]) for start, end in spans)


@given(texts, st.integers(1, 7))
def test_windows_lose_no_token(text, window_tokens):
    whole, windowed = (
        next(chunk([document(text)], encoder, ChunkConfig()))
        for encoder in (HashedEncoder(), HashedEncoder(window_tokens))
    )
    if isinstance(whole, Rejection):
        assert whole == windowed
        return
    # An encoder that cuts after a number of words never splits one, nor do we, unless no space is in reach.
    if all(len(word) < window_tokens * 4 for word in text.split()):
        assert windowed.num_tokens == whole.num_tokens
        assert windowed.chunk_spans == whole.chunk_spans
        np.testing.assert_allclose(windowed.vectors, whole.vectors, atol=1e-5)


def test_long_documents_are_pooled_over_the_whole_text():
    words = filler(5000)
    encoder = HashedEncoder(window_tokens=300)
    found = chunked(" ".join(words), encoder)
    (tokens,) = HashedEncoder().encode_tokens([" ".join(words)])
    assert found.num_tokens == 5000
    np.testing.assert_allclose(found.vectors, pool(tokens.vectors, 5, 0.05, 1.0), atol=1e-5)
    assert encoder.num_calls == pytest.approx(5000 / 300, rel=0.2)


def test_very_long_documents_are_added_up_window_by_window(monkeypatch):
    text = " ".join(filler(3000))
    held, encoder = chunked(text), HashedEncoder(window_tokens=200)
    monkeypatch.setattr(windows, "_MAX_HELD_TOKENS", 1000)
    streamed = chunked(text, encoder)
    np.testing.assert_allclose(streamed.vectors, held.vectors, atol=1e-5)
    assert (streamed.chunk_spans, streamed.num_tokens) == (held.chunk_spans, held.num_tokens)
    assert encoder.num_calls == pytest.approx(2 * 3000 / 200, rel=0.2)


def test_text_without_a_space_is_read_to_its_end():
    found = chunked("x" * 100_000, HashedEncoder(window_tokens=1000))
    assert found.chunk_spans[-1][1] == 100_000
    assert found.num_tokens > 5


def test_a_blank_stretch_does_not_end_a_document():
    found = chunked("first" + " " * 200_000 + "last")
    assert found.num_tokens == 2


@pytest.mark.parametrize("text", ["", " \n\t", "...", "\x00", "--- !!!"])
def test_no_token_is_a_rejection(text):
    (found,) = chunk([document(text, "blank")], HashedEncoder(), ChunkConfig())
    assert isinstance(found, Rejection)
    assert (found.stage, found.reason, found.record_id, found.failed) == ("chunk", "no_tokens", "blank", False)


def test_one_item_per_document_in_order_and_the_same_in_any_company():
    documents = [document(" ".join(filler(1 + 37 * i, seed=i)) if i % 7 else "", f"d{i}") for i in range(100)]
    together = list(chunk(iter(documents), HashedEncoder(), ChunkConfig()))
    assert len(together) == 100
    for one, found in zip(documents, together, strict=True):
        (alone,) = chunk([one], HashedEncoder(), ChunkConfig())
        if isinstance(found, Rejection):
            assert (found, found.record_id) == (alone, one.document_id)
        else:
            assert found.document is one
            np.testing.assert_array_equal(found.vectors, alone.vectors)
            assert found.chunk_spans == alone.chunk_spans


def test_documents_are_read_as_they_are_needed():
    def endless():
        number = 0
        while True:
            yield document(" ".join(filler(50)), f"d{number}")
            number += 1

    stream = chunk(endless(), HashedEncoder(), ChunkConfig())
    assert [next(stream).document.document_id for _ in range(3)] == ["d0", "d1", "d2"]


def follow_the_passage(encoder: HashedEncoder, **settings) -> tuple[list[float], list[float], list[bool]]:
    """Move one passage through a long document: its position, the middle of the best chunk, whether it lies in it."""
    query = encoder.encode_texts(["how do penguins incubate an egg in the antarctic winter"])[0]
    passage, words = PASSAGE.split(), filler(500)
    positions, best, inside = [], [], []
    for place in range(0, len(words) - len(passage), 4):
        text = " ".join(words[:place] + passage + words[place + len(passage) :])
        found = chunked(text, encoder, **settings)
        number = int(np.argmax(found.vectors[:-1] @ query))
        start, end = found.span(number)
        middle = text.index("Penguins") + len(PASSAGE) / 2
        positions.append(middle / len(text))
        best.append((start + end) / 2 / len(text))
        inside.append(start <= middle < end)
    return positions, best, inside


@pytest.mark.parametrize("window_tokens", [1_000_000, 128])
def test_moving_a_passage_moves_the_best_chunk(window_tokens):
    """Acceptance check 2 of method.md: the chunk that scores best follows the passage.

    Five steps correlate with a straight line at 0.98 at the very best.
    """
    positions, best, inside = follow_the_passage(HashedEncoder(window_tokens))
    assert len(set(np.round(best, 1))) == 5
    assert np.corrcoef(positions, best)[0, 1] > 0.97
    assert np.mean(inside) > 0.9


def test_more_chunks_follow_a_passage_more_closely():
    positions, best, _ = follow_the_passage(HashedEncoder(), coverage_chunks=20, sigma=0.02)
    assert np.corrcoef(positions, best)[0, 1] > 0.99


def test_spans_of_chunks():
    found = chunked("aaaa bbbb cccc dddd eeee", coverage_chunks=5)
    assert [found.document.text[s:e] for s, e in found.chunk_spans] == ["aaaa ", "bbbb ", "cccc ", "dddd ", "eeee"]
    assert found.span(GLOBAL_CHUNK) == (0, 24)
    assert found.span(1) == (5, 10)
    with pytest.raises(ValueError, match="chunk 5"):
        found.span(5)
