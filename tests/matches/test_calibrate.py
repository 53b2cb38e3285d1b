"""Calibration: cosines of labelled pairs, and thresholds that keep what their rule promises."""

import numpy as np
import pytest
from hashed_encoder import HashedEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.backends.vector_index import ArraySource, build_vectors
from fineinstructions.config import from_mapping
from fineinstructions.errors import ConfigError
from fineinstructions.matches.calibrate import CalibrateConfig, LabelledPair, ScoredPair, calibrate, score
from fineinstructions.matches.chunk import ChunkConfig, chunk
from fineinstructions.records import Document, Rejection

scored_pairs = st.lists(
    st.builds(ScoredPair, st.integers(-10, 10).map(lambda n: n / 10), st.booleans()), min_size=2, max_size=60
).filter(lambda pairs: len({pair.is_good for pair in pairs}) == 2)


def worth(pairs: list[ScoredPair], threshold: float) -> tuple[int, float, float, float]:
    kept = [pair for pair in pairs if pair.cosine >= threshold]
    good = sum(pair.is_good for pair in kept)
    precision, recall = good / len(kept), good / sum(pair.is_good for pair in pairs)
    return len(kept), precision, recall, 2 * precision * recall / (precision + recall) if good else 0.0


@given(scored_pairs)
@settings(deadline=None)
def test_figures_are_those_of_every_threshold_by_itself(pairs):
    found = calibrate(pairs, CalibrateConfig(num_rows=100))
    assert [t.min_cosine for t in found.thresholds] == sorted({pair.cosine for pair in pairs})
    for figures in found.thresholds:
        assert (figures.num_kept, figures.precision, figures.recall, figures.f1) == pytest.approx(
            worth(pairs, figures.min_cosine)
        )
    assert found.chosen.f1 == max(t.f1 for t in found.thresholds)
    assert all(t.f1 < found.chosen.f1 for t in found.thresholds if t.min_cosine > found.chosen.min_cosine)
    assert sum(bar.num_good for bar in found.histogram) == found.num_good
    assert sum(bar.num_bad for bar in found.histogram) == found.num_bad
    for bar in found.histogram:
        inside = [p for p in pairs if bar.from_cosine - 1e-6 <= p.cosine < bar.from_cosine + 0.05 - 1e-6]
        assert bar.num_good + bar.num_bad == len(inside)


@given(scored_pairs, st.sampled_from([0.3, 0.6, 0.9, 1.0]))
@settings(deadline=None)
def test_the_lowest_threshold_of_a_precision_is_chosen(pairs, wanted):
    reaching = [t for t in sorted({p.cosine for p in pairs}) if worth(pairs, t)[1] >= wanted]
    if not reaching:
        with pytest.raises(ConfigError, match=r"no threshold reaches a precision of .*; the best is 0\."):
            calibrate(pairs, CalibrateConfig(min_precision=wanted))
        return
    assert calibrate(pairs, CalibrateConfig(min_precision=wanted)).chosen.min_cosine == reaching[0]


def test_one_kind_of_pair_is_not_enough():
    for pairs in ([], [ScoredPair(0.5, True)] * 3, [ScoredPair(0.5, False)]):
        with pytest.raises(ConfigError, match="needs both good and bad ones"):
            calibrate(pairs, CalibrateConfig())


def test_a_long_curve_is_shown_in_a_few_rows():
    chance = np.random.default_rng(0)
    cosines = chance.random(5000).round(6)
    is_good = cosines + chance.normal(0, 0.2, 5000) > 0.5
    pairs = [ScoredPair(*pair) for pair in zip(cosines.tolist(), is_good.tolist(), strict=True)]
    found = calibrate(pairs, CalibrateConfig())
    assert 20 <= len(found.thresholds) <= 21
    assert found.chosen in found.thresholds
    assert 0.2 < found.chosen.min_cosine < 0.6


def test_a_pairs_cosine_is_that_of_its_best_vector():
    text = "penguins antarctic " * 20 + "bread baking " * 20
    pairs = [
        LabelledPair("bread baking", text, True),
        LabelledPair("violin concerto", text, False),
        LabelledPair("bread baking", "violin concerto", False),
        LabelledPair("bread baking", text, True),
        LabelledPair("bread baking", "...", False),
    ]
    encoder = HashedEncoder()
    found = list(score(pairs, encoder, ChunkConfig()))
    (item,) = chunk([Document("d", text)], HashedEncoder(), ChunkConfig())
    best = (item.vectors @ encoder.encode_texts(["bread baking"])[0]).max()
    assert found[0].cosine == found[2].cosine == pytest.approx(best, abs=1e-6)  # by document, then in the given order
    assert found[1].cosine < 0.5 < found[0].cosine
    assert [item.is_good for item in found[:4]] == [True, False, True, False]
    assert isinstance(found[4], Rejection)
    assert found[4].reason == "no_tokens"
    assert list(score([], encoder, ChunkConfig())) == []


def test_cosines_are_those_that_retrieval_decides_by(tmp_path):
    words = [f"word{i} other{i % 7}" for i in range(40)]
    texts = [" ".join(words[i : i + 12]) for i in range(28)]
    encoder = HashedEncoder()
    index = build_vectors(ArraySource([encoder.encode_texts(words)]), tmp_path, encoder.encoder_id)
    pairs = [LabelledPair(word, text, True) for text in texts for word in words]
    scored = iter(score(pairs, encoder, ChunkConfig()))
    for item in chunk((Document("d", text) for text in texts), encoder, ChunkConfig()):
        found = index.search(item.vectors, -1.0, len(words))
        best = np.max([n.cosines[np.argsort(n.ids)] for n in found], axis=0)
        assert [next(scored).cosine for _ in words] == best.tolist()


@pytest.mark.parametrize("wrong", [{"min_precision": 0}, {"min_precision": 1.2}, {"num_rows": 0}, {"bin_width": 0}])
def test_bad_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        from_mapping(wrong, CalibrateConfig)
