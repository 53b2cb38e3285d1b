"""The answer models: trees that learn, texts read the same way every time, files that load what was saved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fineinstructions.embedded.answers.associations import Associations, learn_associations
from fineinstructions.embedded.answers.boosting import Boosting, fit_trees
from fineinstructions.embedded.answers.examples import Example
from fineinstructions.embedded.answers.learn import auc, learn_answers
from fineinstructions.embedded.answers.lexical import Bm25, counted
from fineinstructions.embedded.answers.model import AnswerModel, best_run
from fineinstructions.embedded.answers.sentences import Sentences
from fineinstructions.embedded.answers.trees import Trees
from fineinstructions.embedded.answers.wrong import WrongTexts
from fineinstructions.embedded.encoder import DATA_DIR


@pytest.fixture(scope="module")
def model() -> AnswerModel:
    return AnswerModel.load(DATA_DIR)


def test_trees_learn_what_needs_two_features_at_once() -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    rows = generator.normal(size=(3000, 6)).astype(np.float32)
    labels = rows[:, 0] * rows[:, 3] > 0
    how = Boosting(num_trees=60, depth=4, min_weight=5.0)
    trees = fit_trees(rows[:2000], labels[:2000], how)
    scores = trees.scores(rows[2000:])
    assert auc(scores[labels[2000:]], scores[~labels[2000:]]) > 0.95
    again = fit_trees(rows[:2000], labels[:2000], how)
    assert again.scores(rows).tobytes() == trees.scores(rows).tobytes()


def test_saved_trees_score_alike() -> None:
    rows = np.arange(200, dtype=np.float32).reshape(-1, 1)
    trees = fit_trees(rows, rows[:, 0] > 90, Boosting(num_trees=20, depth=2, min_weight=2.0))
    assert Trees.read(trees.arrays("t"), "t").scores(rows).tobytes() == trees.scores(rows).tobytes()


def test_trees_need_both_kinds_of_rows() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        fit_trees(np.zeros((4, 1), np.float32), np.ones(4, bool))


def test_associations_tell_which_words_answer() -> None:
    yes, no = [frozenset({"surgery", "help"})], [frozenset({"fever", "help"})]
    examples = [(f"How is disease number{n} treated?", yes, no) for n in range(60)]
    found = learn_associations(examples)
    row = found.of("How is gout treated?")
    assert row["surgery"] > 0.5
    assert row["fever"] < -0.5
    assert "help" not in row
    assert not any("number" in word for word in found.rows)
    assert Associations.read(found.arrays("a"), "a").rows == found.rows


def test_bm25_finds_the_rare_word() -> None:
    texts = ["the wolf and the lamb", "the lamb sleeps", "the fox and the grapes"]
    assert int(Bm25(texts).scores("what did the wolf do").argmax()) == 0
    assert not Bm25(texts).scores("who was it").any()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What are the symptoms of gout?", "Symptoms include fever, swelling and severe pain in the joints."),
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
    found, missed = (model.answerable(model.ask(question, sentences)) for sentences in (right, wrong))
    assert found > model.min_answerable > missed
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
def test_learning_is_deterministic_and_reloads(tmp_path) -> None:
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
    assert any(line.startswith("judge, held out: health section") for line in said)


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
