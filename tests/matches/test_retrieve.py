"""Retrieval: every vector finds what lies above the threshold, gates hold, and nothing found is a rejection."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hashed_encoder import HashedEncoder

from fineinstructions.config import from_mapping
from fineinstructions.errors import ConfigError
from fineinstructions.matches.candidates import Candidates
from fineinstructions.matches.chunk import ChunkConfig, chunk
from fineinstructions.matches.retrieve import RetrieveConfig, retrieve, threshold
from fineinstructions.matches.sample import SampleConfig, Sampler, sample
from fineinstructions.records import GLOBAL_CHUNK, Document, Rejection, Template
from fineinstructions.templates.index import IndexConfig, build_index

SUBJECTS = [
    "penguins antarctic", "volcano eruption", "bread baking", "court appeal", "diabetes insulin", "orbit satellite",
    "violin concerto", "harbour trade", "vaccine trial", "glacier melting", "chess opening", "cotton weaving",
]  # fmt: skip


def template(number: int) -> Template:
    description = f"document about {SUBJECTS[number % len(SUBJECTS)]} part{number // len(SUBJECTS)}"
    return Template(f"t-{number:03}", "What is <fi>a thing</fi>?", description, number % 4, ("q",))


def document(number: int, length: int = 60) -> Document:
    """A text about one subject in each fifth of it."""
    rng = np.random.default_rng(number)
    words = [rng.choice(SUBJECTS[(number + 12 * i // length) % len(SUBJECTS)].split()) for i in range(length)]
    return Document(f"d{number}", " ".join(words))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    templates = [template(i) for i in range(120)]
    return build_index(templates, HashedEncoder(), IndexConfig(), tmp_path_factory.mktemp("index"))


def chunked(documents):
    return list(chunk(documents, HashedEncoder(), ChunkConfig()))


def comparable(items, index):
    """Candidates as records, which can be compared; rejections as they are."""
    return [item.matches(index) if isinstance(item, Candidates) else item for item in items]


class EveryOther:
    """Allows a document the templates of its parity, a part of it half of them; those named `shut` none, `open` all."""

    min_cosine = 0.3

    def allowed(self, document, span=None):
        if document.document_id.startswith("open"):
            return np.arange(120)
        rows = np.arange(int(document.document_id[1:] or 0) % 2, 120, 2) if document.document_id[0] == "d" else []
        part = rows if span is None else [row for row in rows if (row // 2 + span[0]) % 2]
        return np.array(part, dtype=np.int64)


@pytest.mark.parametrize("gate", [None, EveryOther()])
def test_candidates_are_what_each_vector_sees_above_the_threshold(index, gate):
    documents = [document(i) for i in range(70)]
    config = RetrieveConfig(min_cosine=0.25, max_candidates=7)
    items = chunked(documents)
    vectors = index.vectors.vectors(np.arange(120)).astype(float)
    everything = list(retrieve(items, index, gate, config))
    assert [c.document_id for c in everything] == [d.document_id for d in documents]
    for item, found in zip(items, everything, strict=True):
        assert isinstance(found, Candidates)
        expected = []
        for number in [GLOBAL_CHUNK, 0, 1, 2, 3, 4]:
            cosines = np.round(vectors @ item.vectors[number].astype(float), 6)
            above = np.flatnonzero(cosines >= 0.25)
            if gate is not None:
                span = None if number == GLOBAL_CHUNK else item.span(number)
                above = np.intersect1d(above, gate.allowed(item.document, span))
            best = sorted(above.tolist(), key=lambda row: (-cosines[row], row))[:7]
            expected += [(f"t-{row:03}", number, cosines[row], len(above)) for row in best]
        matches = found.matches(index)
        assert [(m.template_id, m.chunk, m.num_above) for m in matches] == [(t, c, n) for t, c, _, n in expected]
        np.testing.assert_allclose([m.cosine for m in matches], [c for _, _, c, _ in expected], atol=1.1e-6)
        assert not any(m.sampled for m in matches)
        assert {m.document_id for m in matches} == {item.document.document_id}
        assert found.sampled_matches(index) == []


def test_a_part_is_found_by_its_own_vector(index):
    text = "antarctic penguins " * 20 + "bread baking " * 60 + "violin concerto " * 20
    (found,) = retrieve(chunked([Document("d", text)]), index, None, RetrieveConfig(min_cosine=0.3))
    first, last = ({m.template_id for m in found.matches(index) if m.chunk == number} for number in (0, 4))
    assert "t-000" in first - last
    assert "t-006" in last - first


def test_nothing_found_is_a_rejection_with_the_best_cosine(index):
    (item,) = chunked([Document("dx", "penguins and unrelated things somewhere else entirely different")])
    found, kept = (
        next(retrieve([item], index, None, RetrieveConfig(min_cosine=threshold))) for threshold in (0.9, -1.0)
    )
    assert isinstance(found, Rejection)
    assert (found.stage, found.reason, found.record_id) == ("retrieve", "no_candidate", "dx")
    nearest = max(kept.matches(index), key=lambda m: m.cosine)
    assert found.value == nearest.cosine
    assert json.loads(found.record) == {
        "document_id": "dx",
        "template_id": nearest.template_id,
        "chunk": nearest.chunk,
        "cosine": nearest.cosine,
        "min_cosine": 0.9,
    }
    # The stored value says where the threshold would have to lie.
    assert isinstance(next(retrieve([item], index, None, RetrieveConfig(min_cosine=found.value))), Candidates)


def test_the_best_cosine_behind_a_gate_is_of_what_it_allows_to_each_part(index):
    item, gate = chunked([document(7)])[0], EveryOther()
    found = next(retrieve([item], index, gate, RetrieveConfig(min_cosine=1.0)))
    assert (found.reason, json.loads(found.record)["cosine"]) == ("no_candidate", found.value)
    kept = next(retrieve([item], index, gate, RetrieveConfig(min_cosine=found.value))).matches(index)
    assert {(m.template_id, m.chunk) for m in kept if m.cosine == found.value} >= {
        (json.loads(found.record)["template_id"], json.loads(found.record)["chunk"])
    }
    assert max(m.cosine for m in kept) == found.value


def test_gates_that_allow_nothing_or_everything(index):
    shut, opened = chunked([Document("shut", document(1).text), Document("open", document(1).text)])
    config = RetrieveConfig(min_cosine=0.25)
    closed, gated = retrieve([shut, opened], index, EveryOther(), config)
    assert isinstance(closed, Rejection)
    assert (closed.reason, closed.value) == ("no_compatible_template", None)
    (free,) = retrieve([opened], index, None, config)
    nearest = max(free.matches(index), key=lambda m: m.cosine)
    assert json.loads(closed.record) == {
        "document_id": "shut",
        "template_id": nearest.template_id,
        "chunk": nearest.chunk,
        "cosine": nearest.cosine,
        "min_cosine": 0.25,
    }
    assert gated.matches(index) == free.matches(index)


def test_results_do_not_depend_on_company(index):
    items = chunked([document(i, length=5 + i) for i in range(80)])
    together = list(retrieve(iter(items), index, None, RetrieveConfig(min_cosine=0.2)))
    for item, found in zip(items, together, strict=True):
        (alone,) = retrieve([item], index, None, RetrieveConfig(min_cosine=0.2))
        assert found == alone if isinstance(found, Rejection) else found.matches(index) == alone.matches(index)


def test_the_threshold_defaults_to_the_encoders_own(index):
    items = chunked([document(i) for i in range(10)])
    default, explicit = (
        list(retrieve(items, index, None, RetrieveConfig(min_cosine=cosine))) for cosine in (None, index.min_cosine)
    )
    assert comparable(default, index) == comparable(explicit, index)


def test_documents_without_known_words_are_rejected_with_cosine_zero(index):
    (item,) = chunked([document(0)])
    blank = type(item)(item.document, np.zeros_like(item.vectors), item.chunk_spans, item.num_tokens)
    (found,) = retrieve([blank], index, None, RetrieveConfig())
    assert (found.reason, found.value) == ("no_candidate", 0.0)


@pytest.mark.parametrize("wrong", [{"min_cosine": 1.5}, {"max_candidates": 0}, {"min_cos": 0.5}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        from_mapping(wrong, RetrieveConfig)


def test_a_gate_brings_its_own_threshold(index):
    found = retrieve(chunked([document(2), document(3)]), index, EveryOther(), RetrieveConfig())
    gated = [item for item in found if isinstance(item, Candidates)]
    given = retrieve(chunked([document(2), document(3)]), index, EveryOther(), RetrieveConfig(min_cosine=0.3))
    asked = [item for item in given if isinstance(item, Candidates)]
    assert comparable(gated, index) == comparable(asked, index)
    assert index.min_cosine != EveryOther.min_cosine


class WholeOnly(HashedEncoder):
    """As a server: the vector of the whole, no chunks."""

    min_cosine = None

    def encode_documents(self, texts, pooling):
        return [replace(d, vectors=d.vectors[-1:]) for d in super().encode_documents(texts, pooling)]


def test_an_encoder_of_wholes_finds_by_the_whole_alone(index):
    (item,) = chunk([document(3)], WholeOnly(), ChunkConfig())
    assert (item.chunk_spans, len(item.vectors), item.num_tokens) == ((), 1, 60)
    assert item.span(GLOBAL_CHUNK) == (0, len(item.document.text))
    with pytest.raises(ValueError, match="chunk 0"):
        item.span(0)
    (usual,) = retrieve(chunked([document(3)]), index, None, RetrieveConfig(min_cosine=0.3))
    (found,) = retrieve([item], index, None, RetrieveConfig(min_cosine=0.3))
    assert found.matches(index) == [m for m in usual.matches(index) if m.chunk == GLOBAL_CHUNK]
    (sampled,) = sample([found], Sampler(index, SampleConfig(templates_per_document=2), seed=0))
    assert [m.chunk for m in sampled.sampled_matches(index)] == [GLOBAL_CHUNK] * 2
    (nothing,) = retrieve([item], index, None, RetrieveConfig(min_cosine=1.0))
    assert json.loads(nothing.record)["chunk"] == GLOBAL_CHUNK


def test_the_threshold_is_the_recipes_else_the_gates_else_the_encoders(tmp_path):
    assert threshold(RetrieveConfig(min_cosine=0.7), EveryOther(), 0.9) == 0.7
    assert threshold(RetrieveConfig(), EveryOther(), None) == 0.3
    assert threshold(RetrieveConfig(), None, 0.9) == 0.9
    bare = build_index([template(0)], WholeOnly(), IndexConfig(), tmp_path)
    with pytest.raises(ConfigError, match=r"retrieve\.min_cosine: missing"):
        list(retrieve(chunked([document(1)]), bare, None, RetrieveConfig()))
