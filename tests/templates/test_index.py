"""Template index: rows, ids, descriptions, and what happens when its parts do not belong together."""

import hashlib
import shutil
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from fineinstructions.backends.encoder import PooledDocument
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.pooling import Pooling
from fineinstructions.records import Template
from fineinstructions.templates.index import IndexConfig, build_index, open_index


class WordEncoder:
    """A small real encoder: every word has a random vector of its own, a text is the sum of its words."""

    encoder_id = "word-1"
    dimension = 24
    min_cosine: float | None = 0.4

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
                vectors[row] += np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
            vectors[row] /= max(np.linalg.norm(vectors[row]), 1e-9)
        return vectors

    def encode_documents(self, texts: Sequence[str], pooling: Pooling) -> list[PooledDocument]:
        raise AssertionError("an index embeds descriptions as a whole")


class OtherEncoder(WordEncoder):
    encoder_id = "word-2"


def bank(count: int) -> list[Template]:
    """Templates whose description has one word that no other has."""
    return [
        Template(
            template_id=f"t-{i:04}",
            template="What is <fi>a thing</fi>?" * (i % 3),
            compatible_document_description=f"a page that explains subject{i} in détail",
            num_slots=i % 3,
            query_ids=(f"q-{i}", f"q-{i + 1}"),
            source="test",
            licence="CC0-1.0",
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank") / "deep" / "index"
    return folder, build_index(bank(300), WordEncoder(), IndexConfig(batch_size=7), folder)


def test_rows_keep_the_order_of_the_bank(built):
    folder, index = built
    assert list(index.templates()) == bank(300)
    assert list(open_index(folder).templates(np.array([299, 3, 3]))) == [bank(300)[i] for i in (299, 3, 3)]
    assert index.num_slots.tolist() == [t.num_slots for t in bank(300)]
    assert index.template_ids(np.array([5, 0])) == ["t-0005", "t-0000"]
    assert (len(index), index.encoder_id, index.min_cosine) == (300, "word-1", 0.4)


def test_an_encoder_without_a_threshold_leaves_none(tmp_path):
    encoder = WordEncoder()
    encoder.min_cosine = None
    assert build_index(bank(3), encoder, IndexConfig(), tmp_path).min_cosine is None


def test_a_template_is_found_by_its_id(built):
    _, index = built
    for row in (0, 17, 299):
        assert index.row(f"t-{row:04}") == row
        assert index.template(f"t-{row:04}") == bank(300)[row]
    with pytest.raises(KeyError):
        index.row("t-9999")
    with pytest.raises(KeyError):
        index.template("")


def test_colliding_keys_are_told_apart_by_the_id(built, monkeypatch, tmp_path):
    monkeypatch.setattr("fineinstructions.templates.table.key_of", lambda template_id: 7)
    index = build_index(bank(5), WordEncoder(), IndexConfig(), tmp_path)
    assert [index.row(f"t-{row:04}") for row in range(5)] == list(range(5))
    with pytest.raises(KeyError):
        index.row("t-9999")


def test_a_vector_belongs_to_the_description_of_its_row(built):
    folder, _ = built
    encoder = WordEncoder()
    index = open_index(folder, encoder)
    descriptions = [t.compatible_document_description for t in index.templates()]
    for row, found in enumerate(index.vectors.search(encoder.encode_texts(descriptions), 0.99, 5)):
        assert found.ids[0] == row
    np.testing.assert_array_equal(index.vectors.vectors(np.array([1])), encoder.encode_texts(descriptions[1:2]))


def test_batches_do_not_change_the_bytes(built, tmp_path):
    folder, _ = built
    build_index(bank(300), WordEncoder(), IndexConfig(batch_size=1000), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index-300.faiss", "manifest.json", "templates.arrow"]
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_keys_do_not_depend_on_the_row(built, tmp_path):
    _, index = built
    shuffled = build_index(bank(300)[::-1], WordEncoder(), IndexConfig(), tmp_path)
    assert len(set(index.keys.tolist())) == 300
    np.testing.assert_array_equal(index.keys, shuffled.keys[::-1])


def test_the_kind_is_configurable(tmp_path):
    index = build_index(bank(200), WordEncoder(), IndexConfig(kind="ivf", nlist=4, nprobe=4), tmp_path)
    assert index.vectors.kind == "ivf"
    assert open_index(tmp_path).vectors.search(WordEncoder().encode_texts(["subject3"]), 0.0, 1)[0].ids.tolist() == [3]


def test_bad_banks_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no template"):
        build_index([], WordEncoder(), IndexConfig(), tmp_path)
    with pytest.raises(DataError, match="t-0000 occurs twice"):
        build_index(bank(3) + bank(1), WordEncoder(), IndexConfig(), tmp_path)


def test_parts_that_do_not_belong_together_are_refused(built, tmp_path):
    folder, _ = built
    with pytest.raises(ConfigError, match="'word-1', this run uses 'word-2'"):
        open_index(folder, OtherEncoder())
    with pytest.raises(ConfigError, match="no index here"):
        open_index(tmp_path / "nowhere")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    build_index(bank(299), WordEncoder(), IndexConfig(), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "templates.arrow", copy)
    with pytest.raises(DataError, match="not the templates"):
        open_index(copy)
    with pytest.raises(DataError, match="299 templates, but 300 vectors"):
        open_index(copy, verify=False)
    (copy / "templates.arrow").write_bytes(b"ARROW1 or not")
    with pytest.raises(DataError, match="not a template table"):
        open_index(copy, verify=False)
    (copy / "templates.arrow").unlink()
    with pytest.raises(DataError, match="missing"):
        open_index(copy)
