"""The answer models: trees that learn, texts read the same way every time, files that load what was saved."""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.embedded.answers.associations import Associations, asking_words, learn_associations
from fineinstructions.embedded.answers.boosting import Boosting, exported, fit_trees
from fineinstructions.embedded.answers.cases import auc
from fineinstructions.embedded.answers.examples import Example, story_examples
from fineinstructions.embedded.answers.gate import learn_gate
from fineinstructions.embedded.answers.learn import MAX_PER_SOURCE, balanced, learn_answers
from fineinstructions.embedded.answers.lexical import Bm25, content_stems, counted
from fineinstructions.embedded.answers.model import PAGE, STORY, AnswerModel, best_run
from fineinstructions.embedded.answers.question import read_question
from fineinstructions.embedded.answers.sentences import Sentences
from fineinstructions.embedded.answers.trees import Trees, no_trees
from fineinstructions.embedded.answers.wrong import WrongTexts
from fineinstructions.embedded.encoder import DATA_DIR
from fineinstructions.errors import ConfigError


@pytest.fixture(scope="module")
def model() -> AnswerModel:
    return AnswerModel.load(DATA_DIR)


@pytest.mark.extra
def test_trees_learn_what_needs_two_features_at_once() -> None:
    pytest.importorskip("lightgbm")
    generator = np.random.Generator(np.random.PCG64(1))
    rows = generator.normal(size=(3000, 6)).astype(np.float32)
    labels = rows[:, 0] * rows[:, 3] > 0
    trees = fit_trees(rows[:2000], labels[:2000], Boosting(num_trees=80, share_of_features=1.0))
    scores = trees.scores(rows[2000:])
    assert auc(scores[labels[2000:]], scores[~labels[2000:]]) > 0.95
    again = fit_trees(rows[:2000], labels[:2000], Boosting(num_trees=80, share_of_features=1.0))
    assert again.scores(rows).tobytes() == trees.scores(rows).tobytes()


@pytest.mark.extra
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_trees_score_as_the_library_that_fitted_them(seed: int) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = generator.normal(size=(400, 5)).astype(np.float32)
    rows[:, 2] = np.round(rows[:, 2])
    labels = rows.sum(axis=1) > 0.5
    settings = {"objective": "binary", "num_leaves": 4 * seed, "seed": seed, "verbose": -1, "num_threads": 1}
    fitted = lightgbm.train(settings, lightgbm.Dataset(rows, labels.astype(int)), 30)
    scores = exported(fitted.dump_model()["tree_info"]).scores(rows)
    assert np.allclose(scores, fitted.predict(rows, raw_score=True), atol=1e-5)


@pytest.mark.extra
def test_saved_trees_score_alike() -> None:
    pytest.importorskip("lightgbm")
    rows = np.arange(200, dtype=np.float32).reshape(-1, 1)
    trees = fit_trees(rows, rows[:, 0] > 90, Boosting(num_trees=20, min_rows=5))
    assert Trees.read(trees.arrays("t"), "t").scores(rows).tobytes() == trees.scores(rows).tobytes()


def test_no_trees_score_nothing() -> None:
    assert no_trees().scores(np.ones((3, 2), np.float32)).tolist() == [0.0, 0.0, 0.0]


def test_trees_need_both_kinds_of_rows() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        fit_trees(np.zeros((4, 1), np.float32), np.ones(4, bool))


def test_learning_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ConfigError, match=r"pip install 'fineinstructions\[train\]'"):
        fit_trees(np.zeros((4, 1), np.float32), np.arange(4) > 1)


def test_associations_tell_which_words_answer() -> None:
    sentences = Sentences("Surgery can help. Fever can help.")
    right = np.array([True, False])
    found = learn_associations([(f"How is disease number{n} treated?", sentences, right) for n in range(60)])
    assert found.asked == {}, "terms of one document are no terms that documents share"
    several = [Sentences("Surgery can help. Fever can help.") for _ in range(60)]
    found = learn_associations([(f"How is disease number{n} treated?", s, right) for n, s in enumerate(several)])
    row = found.of("How is gout treated?")
    assert found.value(row, "surgery") > 0.5
    assert found.value(row, "surgery can") > 0.5
    assert found.value(row, "fever") < -0.5
    assert found.value(row, "help") == found.value(row, "unheard") == 0.0
    assert not any("number" in word for word in found.asked)
    mean, _, best = found.sentence_odds(row, sentences)
    assert mean[0] > 0.0 > mean[1]
    assert best.tolist() == [found.value(row, "surgery"), 0.0]
    read = Associations.read(found.arrays("a"), "a")
    assert read.asked == found.asked
    assert read.odds_ka.tobytes() == found.odds_ka.tobytes()


def test_irregular_forms_are_one_word() -> None:
    assert content_stems("What did the man give the wolves?") == content_stems("The men gave the wolf")


def test_words_of_a_clause_are_told_apart() -> None:
    associations = _small_model().readers[STORY].associations
    question = read_question("What did the king eat after the Wolf left?", associations)
    assert question.stems == ("king", "eat", "wolf", "leav")
    assert question.clause == {"wolf", "leav"}
    assert question.names == {"wolf"}
    assert not read_question("When did the wolf leave?", associations).has_clause


def test_how_and_how_many_and_how_long_ask_for_different_things() -> None:
    questions = ("How is it treated?", "How many people have it?", "How long does it last?", "Tell how much it costs")
    asked = [set(asking_words(question)) for question in questions]
    assert "how" in asked[0]
    assert {"how many"} == {word for word in asked[1] if word in ("how", "many", "how many")}
    assert {"how long"} == {word for word in asked[2] if word in ("how", "long", "how long")}
    assert "how much" in asked[3]
    associations = _small_model().readers[PAGE].associations
    forms = [read_question(question, associations).forms for question in questions]
    assert len(set(forms)) == 4


TALE = "Once there was a king. He had three sons. 'Where is my horse?' he cried. Then they went into the dark wood."
MANUAL = "Gout is a form of arthritis. Treatment includes medicines. Some people have many other symptoms. It may last."


def test_the_gate_learns_from_the_look_of_sentences_alone() -> None:
    tales = [Sentences(f"{TALE} King{n} was glad. She said so.") for n in range(20)]
    manuals = [Sentences(f"{MANUAL} Type {n} is rare. Doctors can help.", "Gout") for n in range(20)]
    gate = learn_gate(tales, manuals)
    assert all(gate.tells(text) for text in tales)
    assert not any(gate.tells(text) for text in manuals)
    assert gate.tells(Sentences(TALE.replace("king", "queen"), "Gout"))
    assert not gate.tells(Sentences(""))
    assert learn_gate(tales, manuals).weights_m.tobytes() == gate.weights_m.tobytes()
    with pytest.raises(ValueError, match="about stories and about pages"):
        learn_gate(tales, [])


def test_a_story_and_a_page_have_readers_of_their_own(model: AnswerModel) -> None:
    tale, manual = Sentences(TALE), Sentences(MANUAL)
    assert (model.sort(tale), model.sort(manual)) == (STORY, PAGE)
    assert model.ask("What did the king cry?", tale).reader is model.readers[STORY]
    assert model.ask("What is gout?", manual).reader is model.readers[PAGE]


def test_no_publisher_of_pages_drowns_the_others() -> None:
    pages = [
        Example(
            "What is it?", f"text {n}", "", ((0, 4),), f"page {n // 5}", "health", source="a" if n % 10 < 9 else "b"
        )
        for n in range(2000)
    ]
    story = Example("Who came?", "The wolf.", "", ((0, 8),), "tale", "story")
    kept = balanced([*pages, story])
    sources = Counter(example.source for example in kept)
    assert MAX_PER_SOURCE <= sources["a"] < MAX_PER_SOURCE + 5
    assert sources["b"] == 200
    assert story in kept
    assert kept == balanced([*pages, story])


def test_a_sentence_that_holds_the_answers_words_is_inferred(tmp_path: Path) -> None:
    row = {"split": "train", "story": "a", "doc_id": "d", "explicitness": "implicit", "answer_starts": [-1]}
    row |= {"context": "The wolf ran. He ate the old hen slowly. He slept.", "answer_ends": [-1]}
    asked = {"What did he eat?": "the old hens", "Where was it?": "in a castle"}
    rows = [{**row, "question": question, "answers": [answer]} for question, answer in asked.items()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (example,) = story_examples(tmp_path / "a.parquet", "train", infer=True)
    assert example.text[slice(*example.spans[0])] == "He ate the old hen slowly."
    assert example.inferred
    assert story_examples(tmp_path / "a.parquet", "train") == []


def test_bm25_finds_the_rare_word() -> None:
    texts = ["the wolf and the lamb", "the lamb sleeps", "the fox and the grapes"]
    assert int(Bm25(texts).scores("what did the wolf do").argmax()) == 0
    assert not Bm25(texts).scores("who was it").any()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What are the symptoms of gout?", "Symptoms include fever, swelling and severe pain in the joints."),
        ("What are the treatments for gout?", "Doctors treat gout with medicines and, rarely, with surgery."),
        ("How is gout treated?", "Doctors treat gout with medicines and, rarely, with surgery."),
        ("How many people are affected by gout?", "Gout affects about 1 in 50 people worldwide."),
    ],
)
def test_the_sentence_that_answers_ranks_first(model: AnswerModel, question: str, answer: str) -> None:
    others = [
        "Symptoms include fever, swelling and severe pain in the joints.",
        "Doctors treat gout with medicines and, rarely, with surgery.",
        "Gout affects about 1 in 50 people worldwide.",
    ]
    sentences = Sentences("Gout is a disease of the joints.\n\n" + "\n\n".join(others), "Gout")
    asked = model.ask(question, sentences)
    assert sentences.string(int(asked.chances.argmax())) == answer


def test_a_page_about_something_else_is_refused(model: AnswerModel) -> None:
    question = "What are the treatments for gout?"
    right = Sentences("Gout is a disease of the joints.\n\nTreatment of gout includes medicines and rest.", "Gout")
    wrong = Sentences("The wolf came to the river.\n\nThere he saw a lamb that was drinking.", "The wolf")
    found, missed = (model.ask(question, sentences) for sentences in (right, wrong))
    assert model.answerable(found) > found.reader.min_answerable
    assert model.answerable(missed) < missed.reader.min_answerable
    assert model.answerable(model.ask(question, Sentences(""))) == 0.0


def test_the_right_part_of_a_page_fits_better(model: AnswerModel) -> None:
    parts = ["Symptoms include fever, swelling and severe pain.", "Treatment includes medicines, rest and surgery."]
    text = "Gout is a disease.\n\n" + "\n\n".join(parts)
    sentences = Sentences(text, "Gout")
    asked = model.ask("What are the treatments for gout?", sentences)
    first, second = (model.fitting(asked, [(text.index(part), text.index(part) + len(part))]) for part in parts)
    assert second > first


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=60), st.text(max_size=300), st.text(max_size=20))
def test_any_text_gives_chances(question: str, text: str, title: str) -> None:
    model = _small_model()
    sentences = Sentences(text, title)
    asked = model.ask(question, sentences)
    assert asked.chances.shape == (len(sentences),)
    values = [*asked.chances.tolist(), model.answerable(asked), model.fitting(asked, sentences.spans[:1])]
    assert all(0.0 <= value <= 1.0 for value in values)


def _small_model() -> AnswerModel:
    if not _KEPT:
        _KEPT.append(AnswerModel.load(DATA_DIR))
    return _KEPT[0]


_KEPT: list[AnswerModel] = []


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12), st.sampled_from([0.2, 0.5]))
def test_no_run_gains_more_than_the_best(chances: list[float], cut: float) -> None:
    values = np.array(chances, np.float32)
    start, end = best_run(values, cut)
    gains = [(values[a:b] - cut).sum() for a in range(len(values)) for b in range(a + 1, len(values) + 1)]
    assert (values[start:end] - cut).sum() >= max(gains) - 1e-4


def small_examples() -> list[Example]:
    """Questions about thirty small health pages and thirty small stories."""
    found = []
    for number in range(60):
        name, animal = f"gout{number}", ("wolf", "fox", "hen")[number % 3]
        parts = {
            "treatment": f"Treatment of {name} includes rest and medicines.",
            "symptoms": f"Symptoms of {name} are fever and pain.",
            "causes": f"Changes in a gene cause {name} in families.",
        }
        text = f"{name.title()} is a disease.\n\n" + "\n\n".join(parts.values())
        for asks, part in list(parts.items())[: 2 + number % 2]:
            span = (text.index(part), text.index(part) + len(part))
            found.append(Example(f"What is the {asks} of {name}?", text, name, (span,), name, "health", asks))
        for section in (1, 2):
            story = f"The {animal} met King{number} on day {section}. He ate bread. Then he slept under tree {section}."
            span = (story.index("He ate"), story.index("Then") - 1)
            found.append(Example(f"What did King{number} eat?", story, "", (span,), f"tale {number}", "story"))
    return found


@pytest.mark.slow
@pytest.mark.extra
def test_learning_is_deterministic_and_reloads(tmp_path) -> None:
    pytest.importorskip("lightgbm")
    examples = small_examples()
    rarity = counted([e.text for e in examples], 1)
    said: list[str] = []
    first, second = learn_answers(examples, rarity, said.append), learn_answers(examples, rarity, lambda _: None)
    for name, made in (("a", first), ("b", second)):
        (tmp_path / name).mkdir()
        made.save(tmp_path / name)
    assert (tmp_path / "a" / "answers.json").read_bytes() == (tmp_path / "b" / "answers.json").read_bytes()
    read = AnswerModel.load(tmp_path / "a")
    for example in examples[:20]:
        sentences = Sentences(example.text, example.title)
        asked, again = (m.ask(example.question, sentences) for m in (first, read))
        assert asked.chances.tobytes() == again.chances.tobytes()
        assert first.fitting(asked, example.spans) == read.fitting(again, example.spans)
        assert first.answerable(asked) == second.answerable(second.ask(example.question, sentences))
    assert any(line.startswith("page judge, each fold by what the others taught: health section") for line in said)
    assert {first.sort(Sentences(e.text, e.title)) for e in examples if e.kind == "health"} == {PAGE}


def test_wrong_texts_are_wrong() -> None:
    examples = small_examples()
    stories = [e for e in examples if e.kind == "story"]
    wrong = WrongTexts(stories)
    health = WrongTexts([e for e in examples if e.kind == "health"])
    for example in stories[:20]:
        for text in (wrong.random_other(example), wrong.hard_other(example)):
            assert text is not None
            assert text.group != example.group
    for example in [e for e in examples if e.kind == "health"][:20]:
        question = health.unanswered(example)
        if question is not None:
            assert example.title in question
            asked = {e.asks for e in examples if e.group == example.group}
            assert not any(f"the {asks} of" in question for asks in asked)
        for spans in health.other_answers(example):
            assert spans != example.spans
