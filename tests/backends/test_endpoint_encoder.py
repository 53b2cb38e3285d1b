"""Embeddings from an OpenAI-compatible server, over real HTTP."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from fineinstructions.backends.encoder import EncoderConfig
from fineinstructions.backends.encoders import open_encoder
from fineinstructions.backends.endpoint_encoder import EndpointEncoder
from fineinstructions.backends.llm_config import LlmConfig
from fineinstructions.backends.scripted_brain import embeddings
from fineinstructions.backends.scripted_server import ScriptedServer, StatusError, seeded_faults
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.matches.chunk import ChunkConfig, chunk
from fineinstructions.pooling import Pooling
from fineinstructions.records import Document, Rejection

EMBEDDINGS = "/v1/embeddings"
TEXTS = ["penguins of the south", "", "bread and butter", " \n", "penguins of the south"]


def encoder(server: ScriptedServer, model: str = "embedder", **settings: Any) -> EndpointEncoder:
    llm = {"base_url": server.base_url, "backoff_seconds": 0.01} | settings.pop("llm", {})
    found = open_encoder(EncoderConfig(backend="endpoint", model=model, llm=llm, **settings), LlmConfig(model="chat"))
    assert isinstance(found, EndpointEncoder)
    return found


def expected(text: str) -> np.ndarray:
    (item,) = embeddings({"input": [text]})["data"]
    return np.array(item["embedding"])


def test_vectors_of_texts_and_documents() -> None:
    with ScriptedServer(keep_bodies=True) as server:
        model = encoder(server)
        assert model.dimension == 64
        vectors = model.encode_texts(TEXTS)
        documents = model.encode_documents(TEXTS, Pooling())
        model.close()
    assert vectors.dtype == np.float32
    for row, (text, document) in enumerate(zip(TEXTS, documents, strict=True)):
        wanted = expected(text) if text.strip() else np.zeros(64)
        np.testing.assert_allclose(vectors[row], wanted, atol=1e-6)
        np.testing.assert_array_equal(document.vectors, vectors[row : row + 1])
    assert [d.token_starts.tolist() for d in documents[:2]] == [[0, 9, 12, 16], []]
    sent = [body["input"] for body in server.bodies]
    assert sent == [["a text"], *[[t for t in TEXTS if t.strip()]] * 2]
    assert {body["model"] for body in server.bodies} == {"embedder"}
    assert {body["encoding_format"] for body in server.bodies} == {"float"}


def test_threads_share_one_window() -> None:
    texts = [[f"text {i} of thread {n}" for i in range(3)] for n in range(8)]
    with ScriptedServer(latency_seconds=0.2) as server:
        model = encoder(server)
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(model.encode_texts, texts))
        assert 2 <= server.max_in_flight <= 8
        model.close()
        model.close()
    with ScriptedServer() as server:
        alone = encoder(server)
        assert [v.tobytes() for v in found] == [alone.encode_texts(t).tobytes() for t in texts]
        alone.close()


def test_a_document_has_the_whole_alone() -> None:
    with ScriptedServer() as server:
        found, blank = chunk([Document("d", TEXTS[0]), Document("b", " ")], encoder(server), ChunkConfig())
    assert (found.chunk_spans, found.vectors.shape, found.num_tokens) == ((), (1, 64), 4)
    assert isinstance(blank, Rejection)
    assert blank.reason == "no_tokens"


def test_long_texts_are_cut_at_spaces_and_averaged_by_length() -> None:
    text = "alpha beta gamma delta " * 10 + "omega " * 3
    with ScriptedServer(keep_bodies=True) as server:
        (vector,) = encoder(server, window_tokens=10).encode_texts([text])
    pieces = [piece for body in server.bodies for piece in body["input"]]
    assert len(pieces) > 5
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 40
    total = sum(len(p) * expected(p) for p in pieces)
    np.testing.assert_allclose(vector, total / np.linalg.norm(total), atol=1e-6)


def short_texts_only(body: dict[str, Any]) -> dict[str, Any]:
    if any(len(text) > 100 for text in body["input"]):
        raise StatusError(400, "the maximum context length is 100 tokens", "context_length_exceeded")
    return embeddings(body)


def test_a_text_that_the_server_finds_too_long_is_halved() -> None:
    texts = ["short", "one two three four " * 20, "also short"]
    with ScriptedServer(embedder=short_texts_only, keep_bodies=True) as server:
        vectors = encoder(server).encode_texts(texts)
    pieces = [p for body in server.bodies for p in body["input"] if len(p) <= 100 and p not in texts]
    assert "".join(dict.fromkeys(pieces)) != ""
    np.testing.assert_allclose(vectors[[0, 2]], [expected(texts[0]), expected(texts[2])], atol=1e-6)
    assert np.dot(vectors[1], expected(texts[1])) > 0.99


def nothing_bad(body: dict[str, Any]) -> dict[str, Any]:
    if any("badword" in text for text in body["input"]):
        raise StatusError(400, "this input is refused")
    return embeddings(body)


def test_a_refused_document_is_a_failure_and_its_neighbours_are_not() -> None:
    documents = [Document(f"d{i}", f"text {i} " + "badword" * (i == 3)) for i in range(40)]
    with ScriptedServer(embedder=nothing_bad) as server:
        found = list(chunk(documents, encoder(server), ChunkConfig()))
        with pytest.raises(BackendError, match="no embedding for 'a badword'"):
            encoder(server).encode_texts(["fine", "a badword"])
    (failed,) = [f for f in found if isinstance(f, Rejection)]
    assert (failed.stage, failed.reason, failed.record_id, failed.failed) == ("chunk", "request", "d3", True)
    assert "this input is refused" in failed.record


def test_transport_errors_are_retried_and_change_nothing() -> None:
    texts = [f"text number {i}" for i in range(300)]
    with ScriptedServer() as server:
        calm = encoder(server).encode_texts(texts)
    faults = {"rate_limit": 0.1, "server_error": 0.1, "half_body": 0.1, "bad_json": 0.1, "no_choice": 0.05}
    with ScriptedServer(faults=seeded_faults(faults, seed=3)) as server:
        rough = encoder(server).encode_texts(texts)
        assert sum(server.faults_sent.values()) > 0
    assert calm.tobytes() == rough.tobytes()


def test_a_server_that_is_not_there_or_has_no_such_path() -> None:
    gone = "http://127.0.0.1:9/v1"
    with pytest.raises(BackendError, match="start the server") as caught:
        EndpointEncoder(
            EncoderConfig(backend="endpoint", model="m", llm={"base_url": gone, "backoff_seconds": 0.01}), LlmConfig()
        ).encode_texts(["x"])
    assert "\n" not in str(caught.value)
    with ScriptedServer(api_key="sk-right") as server, pytest.raises(BackendError, match="access denied"):
        encoder(server).encode_texts(["x"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "1 embeddings for 2 texts"),
        (lambda data: [data[0], data[1] | {"embedding": [1.0]}], "different widths"),
        (lambda data: [d | {"embedding": [float("nan")] * 64} for d in data], "not finite"),
    ],
)
def test_replies_that_are_none(change: Any, message: str) -> None:
    def wrong(body: dict[str, Any]) -> dict[str, Any]:
        reply = embeddings(body)
        return reply | {"data": change(reply["data"])}

    with ScriptedServer(embedder=wrong) as server, pytest.raises(BackendError, match=message):
        encoder(server).encode_texts(["one", "two"])


def test_replies_are_put_in_order() -> None:
    with ScriptedServer(embedder=lambda body: {"data": embeddings(body)["data"][::-1]}) as server:
        found = encoder(server).encode_texts(["one", "two"])
    np.testing.assert_allclose(found, [expected("one"), expected("two")], atol=1e-6)


def test_the_id_tells_model_label_and_window_but_no_address() -> None:
    with ScriptedServer() as server:
        settings: list[dict[str, Any]] = [
            {}, {"model": "other"}, {"revision": "2026-11"}, {"window_tokens": 100},
            {"llm": {"extra_body": {"dimensions": 32}}},
        ]  # fmt: skip
        names = [encoder(server, **s).encoder_id for s in settings]
        assert len(set(names)) == len(names)
        assert encoder(server, llm={"base_url": "http://elsewhere/v1"}).encoder_id == names[0]
        assert server.base_url not in names[0]


def test_wrong_settings() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.model: name the embedding model"):
        open_encoder(EncoderConfig(backend="endpoint"), LlmConfig())
    with pytest.raises(ConfigError, match=r"encoder\.backend: embedded has no model x"):
        open_encoder(EncoderConfig(backend="embedded", model="x"), LlmConfig())
