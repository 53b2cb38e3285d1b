"""What templates ask for, what documents can answer, and the gate between them."""

import re
from collections import Counter
from importlib.resources import files

import pytest

from fineinstructions.embedded.relations import RelationGate, evidence, wanted
from fineinstructions.embedded.relations.grammar import kind_of_complement, noun_phrase, verb_stem
from fineinstructions.embedded.relations.questions import slot_kind
from fineinstructions.embedded.relations.tables import groups
from fineinstructions.records import Document, Template


def document(text, title="", name="d-1"):
    return Document(name, text, title)


def template(text, name="t-1"):
    return Template(name, text, "a document", text.count("<fi>"), ("q-1",))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("What is <fi>a topic</fi>?", "definition"),
        ("What are <fi>things</fi>?", "definition"),
        ("Who was <fi>a person</fi>?", "identity"),
        ("What does <fi>a term</fi> mean?", "meaning"),
        ("Define <fi>a term</fi>.", "meaning"),
        ("Can you describe <fi>a topic</fi>?", "about"),
        ("What are the symptoms of <fi>a disease</fi>?", "noun:symptom"),
        ("What are signs and symptoms of <fi>a disease</fi>?", "noun:symptom"),
        ("What causes <fi>a disease</fi>?", "noun:cause"),
        ("How is <fi>a disease</fi> treated?", "noun:treatment"),
        ("How do you prevent <fi>a disease</fi>?", "noun:prevention"),
        ("What is the recipe for <fi>a dish</fi>?", "noun:recipe"),
        ("How do you make <fi>a dish</fi>?", "how:make"),
        ("What is <fi>a thing</fi> used for?", "used"),
        ("What is the function of <fi>a thing</fi>?", "noun:function"),
        ("What is the capital of <fi>a country</fi>?", "noun:capital"),
        ("When was <fi>a company</fi> established?", "when:found"),
        ("What year was <fi>a film</fi> released?", "when:releas"),
        ("When did <fi>a film</fi> come out?", "when:releas"),
        ("When was <fi>a person</fi> born?", "when:bear"),
        ("Where was <fi>a person</fi> born?", "where:bear"),
        ("Where is <fi>a place</fi> located?", "where:locate"),
        ("In what country is <fi>a place</fi> located?", "where:country"),
        ("Who invented <fi>a thing</fi>?", "who:invent"),
        ("Who is responsible for <fi>a task</fi>?", "who:responsible"),
        ("What is the difference between <fi>a thing</fi> and <fi>another thing</fi>?", "difference"),
        ("What do <fi>animals</fi> eat?", "act:eat"),
        ("How many legs does <fi>an animal</fi> have?", "count:leg"),
        ("What does <fi>an abbreviation</fi> stand for?", "stand"),
        ("How does <fi>a thing</fi> work?", "work"),
    ],
)
def test_wanted(text, key):
    asked = wanted(text)
    assert asked is not None
    assert asked.key == key


@pytest.mark.parametrize(
    "text",
    [
        "Write a poem.",
        "Is <fi>a thing</fi> good?",
        "<fi>a</fi> <fi>b</fi> <fi>c</fi>?",
        "What is population of <fi>x</fi>?",
        "",
    ],
)
def test_forms_that_are_not_read(text):
    assert wanted(text) is None or wanted(text).key.startswith(("by:", "definition"))


def test_number_tense_and_article_of_the_frame():
    asked = wanted("What were the <fi>things</fi>?")
    assert (asked.plural, asked.past, asked.article) == (True, True, "the")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("the cell cycle", "cell cycle"),
        ("Glycolysis", "Glycolysis"),
        ("an arrhythmia", "arrhythmia"),
        ("red bone marrow",) * 2,
    ],
)
def test_clean_phrases(raw, text):
    assert noun_phrase(raw).text == text


@pytest.mark.parametrize(
    "raw",
    [
        *("This condition", "people", "it", "the company", "The Garden", "In 1960", "the new rule", "creating a map"),
        *("that which is", "the process described", "X later", "", "   ", "the", "a cell that divides", "two types"),
        "the lead single for the album",
    ],
)
def test_phrases_that_name_nothing(raw):
    assert noun_phrase(raw) is None


def test_grammar():
    assert verb_stem("founded") == verb_stem("found") == "found" or verb_stem("founded") == "found"
    assert kind_of_complement("an American television and film actress") == "person"
    assert kind_of_complement("a group of disorders that affect movement") == "disease"
    assert slot_kind("a film, song or product") in ("work", "")


SENTENCES = """
definition | glycolysis | Glycolysis is a pathway that breaks down glucose. Cells need glycolysis.
definition | cell cycle | The cell cycle is an ordered series of events involving growth. Cells follow the cell cycle.
noun:purpose | audit | The purpose of an audit is to find errors in the books. An audit takes days.
when:found | Acme Widgets | Acme Widgets was founded in 1960 by John Smith. Acme Widgets is large.
who:found | Acme Widgets | Acme Widgets was founded in 1960 by John Smith. Acme Widgets is large.
used | asbestos fibers | Asbestos fibers were used in gloves, board covers, pots and many hairdryers. Asbestos fibers.
noun:type | synovial joints | Synovial joints are divided into planar, hinge and pivot joints. Synovial joints move.
noun:type | muscle tissue | There are three types of muscle tissue: skeletal, cardiac, and smooth.
difference | mitosis | The difference between mitosis and meiosis is the number of divisions. Mitosis and meiosis.
stand | WHO | The World Health Organization (WHO) is an agency of the United Nations.
noun:cause | back mutations | Back mutations occur when the vaccine changes inside its host. Back mutations are rare.
"""


@pytest.mark.parametrize("line", SENTENCES.strip().splitlines())
def test_sentence_evidence(line):
    key, subject, text = line.split(" | ")
    found = evidence(document(text, name=f"{key}-{subject}"))
    assert subject in [e.subject.text for e in found.get(key, [])]
    for items in found.values():
        for item in items:
            assert all(0 <= a < b <= len(text) for a, b in item.spans)


@pytest.mark.parametrize(
    "text",
    [
        "This condition is a disorder that affects the skin. This condition is rare.",
        "The crash was mainly the result of the pilot flying too low. The crash was bad.",
        "As shown in Figure 3, the protein is a channel that moves ions. The protein is big.",
        '"Who are you?" said the king. "I am the man that you want," he replied. "Come!" cried she.',
        "Release authority is a necessary and critical component of success. Release authority is given.",
        "Steel plates were eventually fitted down the sides of the ships. Steel plates are heavy.",
        "Raccoons are the primary, or definitive, host of a roundworm found in them. Raccoons climb trees.",
        "Desiccation is a constant danger for an organism exposed to air. Desiccation kills plants.",
    ],
)
def test_sentences_that_tell_nothing_alone(text):
    found = evidence(document(text, name=text[:20]))
    assert not set(found) & {"definition", "noun:cause", "meaning", "identity"}


def test_what_a_thing_is_says_nothing_of_the_meaning_of_its_name():
    text = "The fern genus is a group of plants that bear spores. Gardens grow the fern genus in shade."
    found = evidence(document(text))
    assert "definition" in found
    assert "meaning" not in found


def test_a_cure_is_no_treatment():
    assert wanted("How do you cure <fi>a disease</fi>?").key != "noun:treatment"
    assert wanted("How do you treat <fi>a disease</fi>?").key == "noun:treatment"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("There is no standard staging system for this tumor. Doctors look at where it is found.", False),
        ("The tumor has four stages, from one small tumor to many tumors in other parts of the body.", True),
    ],
)
def test_a_section_that_says_there_is_nothing_is_no_answer(body, told):
    text = f"Tumors\n\nTumors are grown tissue.\n\n## Stages of Ependymoma\n\n{body}\n"
    found = evidence(document(text, "Tumors", name=str(told)))
    assert any(e.subject.text.lower() == "ependymoma" for e in found.get("noun:stage", [])) is told


PAGE = """Cutis laxa

Cutis laxa is a disorder of connective tissue, which gives the body its structure.

## Symptoms

The skin of people with cutis laxa is loose, wrinkled and hangs in folds.

## Treatment

How might cutis laxa be treated? Surgery can make loose skin look better for a time.

## Inheritance

This condition is inherited in an autosomal dominant pattern in most families.
"""


def test_headings_and_repairs():
    found = evidence(document(PAGE, "Cutis laxa"))
    assert found["noun:symptom"][0].subject.kind == "disease"
    start, end = found["noun:treatment"][0].spans[0]
    assert PAGE[start:end].startswith("Surgery can")
    inherited = found["noun:inheritance"][0]
    assert inherited.lead == "Cutis laxa"
    assert PAGE[slice(*inherited.spans[0])].startswith("is inherited")


def test_title_in_capitals_is_spelled_as_the_text_spells_it():
    text = "Skin Cancer\n\nSkin cancer is a disease of the skin. Many people get skin cancer each year.\n"
    assert evidence(document(text, "Skin Cancer"))["definition"][0].subject.text == "skin cancer"


def test_recipe_is_ingredients_and_directions():
    ingredients = "## Ingredients\n\n- 1 cup water\n- 1 bag of black tea\n- some milk, if you like\n\n"
    text = f"Tea\n\n{ingredients}## Directions\n\n1. Boil the water for a minute.\n2. Add tea.\n"
    start, end = evidence(document(text, "Tea"))["noun:recipe"][0].spans[0]
    assert text[start:end].startswith("- 1 cup water")
    assert text[start:end].endswith("2. Add tea.")
    assert evidence(document(text, "Tea"))["made"]


@pytest.mark.parametrize(
    "listed", ["- 1 bag of tea\n- 1 cup water, hot\n- some milk, if you like", "- 2 Tea bags\n- water, a big cup"]
)
def test_a_dish_is_not_made_of_itself(listed):
    text = f"Tea\n\nTea is a drink.\n\n## Ingredients\n\n{listed}\n\n## Notes\n\nDrink it while it is hot.\n"
    assert ("made" in evidence(document(text, "Tea"))) == ("bag of tea" in listed)


@pytest.mark.parametrize("first", ["Boil the water for a minute.", "Put all the dry ingredients into a big pot."])
def test_directions_that_need_the_ingredients_are_no_answer_alone(first):
    text = f"Tea\n\nTea is a drink.\n\n## Directions\n\n1. {first}\n2. Wait for five minutes or so.\n"
    assert ("how:make" in evidence(document(text, "Tea"))) == ("ingredients" not in first)


@pytest.mark.parametrize(
    "said",
    [
        "These daily habits may help prevent gout in most people.",
        "Water helps against gout. It helps most people who have it.",
        "The most common habits are listed below. If you have several of them, see a doctor.",
    ],
)
def test_a_list_that_is_too_long_is_left_out_with_what_announces_it(said):
    habits = "\n".join(f"- {'drink one glass of water before you go to bed ' * 6}{n}" for n in range(6))
    text = f"Gout\n\nGout is a disease of the joints.\n\n## Prevention\n\n{said}\n\n{habits}\n"
    assert ("noun:prevention" in evidence(document(text, "Gout"))) == (said.startswith("Water"))


BANK = [
    template("What are the symptoms of <fi>a disease</fi>?", "t-1"),
    template("What is <fi>a topic</fi>?", "t-2"),
    template("Who is <fi>a person</fi>?", "t-3"),
    template("What are <fi>a topic</fi>?", "t-4"),
    template("When was <fi>a company</fi> founded?", "t-5"),
    template("Write a poem.", "t-6"),
]


def test_gate_allows_only_what_can_be_filled():
    gate = RelationGate(BANK)
    rows = gate.allowed(document(PAGE, "Cutis laxa"))
    assert rows.tolist() == [0, 1]
    assert rows.dtype == "int64"
    assert gate.allowed(document("Nothing to see.", "")).tolist() == []


def test_gate_knows_which_part_of_a_document_answers():
    gate, page = RelationGate(BANK), document(PAGE, "Cutis laxa")
    places = {row: evidence(page)[key][0].middle for row, key in ((0, "noun:symptom"), (1, "definition"))}
    assert places[0] != places[1]
    for row, place in places.items():
        assert gate.allowed(page, (place, place + 1)).tolist() == [row]
        assert row not in gate.allowed(page, (place + 1, len(PAGE))).tolist()
    assert gate.allowed(page, (0, len(PAGE))).tolist() == gate.allowed(page).tolist()
    other = document("Nothing to see.", "")
    assert gate.allowed(other, (0, 15)).tolist() == [] != gate.allowed(page).tolist()


def test_people_are_never_what_and_things_never_who():
    text = "Ada Miller (born 5 May 1970) is an English actress who works in film."
    rows = RelationGate(BANK).allowed(document(text, "Ada Miller"))
    assert rows.tolist() == [2]


def test_evidence_depends_on_the_title_too():
    text = (
        "Symptoms\n\nThe symptoms include fever, cough and a sore throat.\n\nTreatment\n\nTreatment is rest and fluids."
    )
    assert not evidence(document(text))
    assert "noun:symptom" in evidence(document(text, title="Influenza"))


@pytest.mark.parametrize(
    ("told", "title", "is_profession"),
    [
        ("a singer who came to Long Beach", "", True),
        ("the final singer who came to Long Beach", "", False),
        ("the stage name of a singer", "Alex Tagliani", False),
        ("a retired racing driver", "Alex Tagliani", True),
    ],
)
def test_only_what_somebody_works_as_is_a_profession(told, title, is_profession):
    born = " (born October 18, 1973)" if title else ""
    text = f"Alex Tagliani{born} was {told}. Alex Tagliani did well."
    assert ("noun:profession" in evidence(document(text, title, name=told + title))) == is_profession


def _lists() -> dict[str, list[str]]:
    """Words of each list; where one word decides for one group, those of all groups together."""
    found: dict[str, list[str]] = {}
    text = files("fineinstructions.embedded.relations").joinpath("word_lists.txt").read_text(encoding="utf-8")
    for section in text.split("\n[")[1:]:
        name, _, body = section.partition("]\n")
        if re.search(r"^\S+: ", body, re.MULTILINE) and name not in ("kind_nouns", "makers"):
            found |= {f"{name} {group}": list(members) for group, members in groups(name).items()}
        else:
            found[name] = re.sub(r"^\S+: ", "", body, flags=re.MULTILINE).split()
    return found


def test_no_list_holds_a_word_twice() -> None:
    lists = _lists()
    assert "similar" in lists["says_little"]
    assert lists["irregular_verbs write"] == ["wrote", "written"]
    twice = {name: [word for word, number in Counter(held).items() if number > 1] for name, held in lists.items()}
    assert {name: found for name, found in twice.items() if found} == {}
