"""What a page about one thing may say of others, and abbreviations that only it explains."""

import pytest

from fineinstructions.embedded.relations import RelationGate, evidence, wanted
from fineinstructions.embedded.relations.abbreviations import long_form
from fineinstructions.embedded.relations.fit import fit
from fineinstructions.embedded.relations.grammar import kind_of_head, names_person, noun_phrase
from fineinstructions.embedded.relations.reading import Reading
from fineinstructions.records import Document, Template

RASH = "Foxton rash is a disease of the skin that itches. "
RACE = "The 2007 Foxton 400 was the ninth race of the 2007 season, and was run on April 29, 2007 at Foxton Speedway. "
PLANS = "It was held on the old oval, with seating for some forty thousand people on the main straight and both turns. "
MODULE = "LineReader contains functions to navigate and accept predictions. LineReader is loaded by default."


def filled(template: str, text: str, title: str = "") -> list[dict[int, str]]:
    """Every way in which a document fills a template."""
    asked = wanted(template)
    assert asked is not None, template
    found = evidence(Document(f"{template}-{title}-{text[-9:]}", text, title)).get(asked.key, ())
    return [words for item in found if (words := fit(asked, item)) is not None]


USED = "What is <fi>a thing</fi> used for?"
DOES = "What is the function of <fi>a thing</fi>?"


@pytest.mark.parametrize(
    ("template", "title", "text", "words"),
    [
        (
            DOES,
            "Foxton rash",
            RASH + "Keratin helps cells of the outer skin hold together in rows. Hard keratin. Keratin.",
            "keratin",
        ),
        (USED, "Foxton rash", RASH + "Foxton rash is used to test new creams on volunteers.", "Foxton rash"),
        (USED, "", "Aspirin is used to thin the blood and to bring a fever down. Old aspirin. Aspirin.", "aspirin"),
        (
            "What causes <fi>a condition or event</fi>?",
            "Foxton rash",
            RASH + "Foxton rash is caused by a mite in old wool.",
            "Foxton rash",
        ),
        (
            "What are the parts of <fi>a thing</fi>?",
            "",
            "A virion consists of a nucleic acid core and a coat of protein. A small virion. A virion.",
            "a virion",
        ),
        (
            "What happened at <fi>a topic</fi>?",
            "2007 Foxton 400",
            RACE + PLANS + "Ada Miller won.",
            "the 2007 Foxton 400",
        ),
        (
            "What is <fi>a topic</fi> called?",
            "",
            "Free energy is called Gibbs free energy. Free energy.",
            "free energy",
        ),
        (
            "What country does <fi>a person</fi> come from?",
            "Ada Miller",
            "Ada Miller (born 5 May 1970) is a professional golfer from the Netherlands.",
            "Ada Miller",
        ),
        (
            "Who won <fi>a topic</fi>?",
            "",
            "Ada Miller won the 1990 Foxton Award for her work.",
            "the 1990 Foxton Award",
        ),
        ("Who led <fi>a topic</fi>?", "", "Ada Miller led the Foxton Rovers, a club of ten.", "the Foxton Rovers"),
        (
            "What does <fi>a term</fi> mean?",
            "",
            "An x-ray is a type of ray that goes through the body. An x-ray.",
            "an x-ray",
        ),
    ],
)
def test_what_is_told_of_a_thing_in_general(template: str, title: str, text: str, words: str) -> None:
    assert words in [one[0] for one in filled(template, text, title)]


@pytest.mark.parametrize(
    ("template", "title", "text"),
    [
        (USED, "Foxton rash", RASH + "Steroid cream is used to treat Foxton rash in the first days. Steroid cream."),
        (DOES, "Foxton rash", RASH + "A skin test helps your doctor find out how far it has spread. A skin test."),
        (
            DOES,
            "",
            "Ultrasound may be used to guide a needle to the cyst on the screen. Ultrasound is safe. Some ultrasound.",
        ),
        (USED, "", "Torpor can be used by animals for long periods in the winter months. Torpor saves energy."),
        (
            "What is the role of <fi>a topic</fi>?",
            "",
            "Joints also protect the ends of the bones from wear and tear. Joints move. Two joints.",
        ),
        ("What are the parts of <fi>a thing</fi>?", "", MODULE),
        (
            "What causes <fi>a condition or event</fi>?",
            "Foxton rash",
            RASH + "Dust causes fever, which may last. Dust. Fever.",
        ),
        (
            "What causes <fi>a condition or event</fi>?",
            "",
            "The London production is due to close on 31st May 2014. The London production. The London production.",
        ),
        ("What does <fi>a topic</fi> affect?", "", "Foxton rash affects over 120 people in a million. Foxton rash."),
        ("What happened at <fi>a topic</fi>?", "2007 Foxton 400", RACE + PLANS),
        (
            "What is <fi>a topic</fi> called?",
            "",
            "Chemotherapy is called systemic treatment if it reaches the blood. Chemotherapy works. More chemotherapy.",
        ),
        ("Who led <fi>a topic</fi>?", "", "Ada Miller led Foxton Rovers by 36 points."),
        (
            "What year did <fi>a film, song or product</fi> come out?",
            "",
            "On the 10th of June 2011, manager Ada Miller was released after many weeks.",
        ),
        (
            "What was <fi>a topic</fi>?",
            "",
            "A notable example was the 1937 election, in which she lost. A notable example.",
        ),
        (
            "Who was <fi>a person</fi>?",
            "",
            "Ada Miller, the photographer who took the picture, said that it was not a new one.",
        ),
        (
            "What country does <fi>a person</fi> come from?",
            "Ada Miller",
            "Ada Miller (born 5 May 1970) is a Gaelic football goalkeeper who plays for Foxton.",
        ),
        ("Who created <fi>a topic</fi>?", "", "The Foxton Act created the Foxton Office in 1970."),
        ("Who won <fi>a topic</fi>?", "", "Ada Miller won the Foxton Award for a salt of iron."),
        ("Who is in charge of <fi>a topic</fi>?", "", "Joints are responsible for movement, such as that of limbs."),
        ("What does <fi>a term</fi> mean?", "", "Skin rash is the core symptom of a mite disease. Skin rash."),
        ("When did <fi>a topic</fi> die in <fi>a place</fi>?", "", "Ada Miller died in Foxton in April 1990."),
        (
            "Who was <fi>a person</fi>?",
            "Ada Miller",
            "Ada Miller (born 5 May 1970) is an English chemist. Ada Miller was a Foxton Cup finalist in 1990.",
        ),
        ("What causes <fi>a condition or event</fi>?", "", "DNA viruses cause human diseases, such as pox and flu."),
        ("How do you <fi>do something</fi>?", "", "To a large pan, add one spoon of butter and stir."),
        ("Who founded <fi>a topic</fi>?", "", "Ada Miller established a base at Foxton Bay."),
        (
            "What are the steps of <fi>a topic</fi>?",
            "Foxton rash",
            RASH + "\n\n## Stages\n\nThe stages are told by the area of skin.",
        ),
        (
            "What are the types of <fi>a topic</fi>?",
            "",
            "There are many kinds of molecules that stop or help enzymes, and ways to do so.",
        ),
        (
            "What are the types of <fi>a topic</fi>?",
            "",
            "The most common type of arrhythmia is a flutter, which is fast.",
        ),
    ],
)
def test_what_is_told_of_one_case_answers_no_general_question(template: str, title: str, text: str) -> None:
    assert filled(template, text, title) == []


def test_what_a_page_uses_is_not_defined_by_that_use() -> None:
    page = RASH + "Interferon is a drug that is used to treat patients. New interferon. Old interferon."
    assert {0: "interferon"} not in filled("What is <fi>a topic</fi>?", page, "Foxton rash")
    assert {0: "interferon"} in filled(
        "What is <fi>a topic</fi>?", page.replace("treat patients", "kill germs"), "Foxton rash"
    )


def test_stages_answer_a_question_for_stages() -> None:
    page = RASH + "\n\n## Stages\n\nThe stages are told by the area of skin that itches."
    asked = "What are the stages of <fi>a disease</fi>?"
    assert filled(asked, page, "Foxton rash") == [{0: "Foxton rash"}]
    none = RASH + "\n\n## Stages\n\nThere is no staging system for this rash, which covers all of the skin at once."
    assert filled(asked, none, "Foxton rash") == []


@pytest.mark.parametrize(
    ("text", "title", "short", "long"),
    [
        ("Laws protect the prisoners of war (POW) in camps.", "", "POW", "the prisoners of war"),
        ("It is amyotrophic lateral sclerosis (ALS), a disease.", "", "ALS", "amyotrophic lateral sclerosis"),
        ("Rare is hypophosphatasia (HPP) now.", "", "HPP", "hypophosphatasia"),
        ("CPLA is rare.", "Cerebral palsy of the left arm", "CPLA", "cerebral palsy of the left arm"),
        (
            "They take nonsteroidal anti-inflammatory drugs (NSAIDs).",
            "",
            "NSAID",
            "nonsteroidal anti-inflammatory drug",
        ),
        ("Laws protect the prisoners of war (POWs) in camps.", "", "POW", "the prisoner of war"),
        ("In the end (ALS) it stood.", "", "ALS", ""),
        ("ALS is common.", "", "ALS", ""),
    ],
)
def test_long_forms(text: str, title: str, short: str, long: str) -> None:
    assert long_form(Reading(text, title), short) == long


def test_abbreviations_are_written_out_or_refused() -> None:
    asked = "What are the types of <fi>a topic</fi>?"
    told = "There are two types of ALS: fast and slow."
    assert filled(asked, "Amyotrophic lateral sclerosis (ALS) is rare. " + told) == [
        {0: "amyotrophic lateral sclerosis"}
    ]
    assert filled(asked, told) == []
    plural = "Rest and nonsteroidal anti-inflammatory drugs (NSAIDs) help. There are two types of NSAIDs: old and new."
    assert filled(asked, plural) == [{0: "nonsteroidal anti-inflammatory drugs"}]
    letters = "Letters of intent (LOIs) are rare. There are two types of LOIs: short and long."
    assert filled(asked, letters) == [{0: "letters of intent"}]
    assert filled(asked, "There are two types of DNA: old and new.") == [{0: "DNA"}]
    twice = "Amyotrophic lateral sclerosis (ALS) is rare. There are two types of ALS sclerosis: fast and slow."
    assert filled(asked, twice) == [{0: "amyotrophic lateral sclerosis"}]
    assert filled(asked, told, "ALS") == [{0: "ALS"}]
    assert filled(
        "Where is <fi>a topic</fi> found?",
        "The FOX gene is found on the X chromosome, one of the two sex chromosomes. The FOX gene.",
    ) == [{0: "the FOX gene"}]
    assert filled(
        "What does <fi>a term</fi> stand for?", "ALS stands for amyotrophic lateral sclerosis. ALS is rare."
    ) == [{0: "ALS"}]


def test_what_a_noun_is_of_is_written_out_too() -> None:
    asked = "What are the symptoms of <fi>a topic</fi>?"
    told = "The symptoms of ALS include weak hands, slurred speech and cramps. "
    known = "There is no cure yet, as amyotrophic lateral sclerosis (ALS) is rare. "
    assert filled(asked, known + told) == [{0: "amyotrophic lateral sclerosis"}]
    assert filled(asked, told) == []


def test_capitals_are_no_pronouns() -> None:
    found = [noun_phrase(words) for words in ("the US Marines", "an IT department", "us marines")]
    assert [phrase and phrase.text for phrase in found] == ["US Marines", "IT department", None]


def test_a_trade_before_a_name_is_a_person() -> None:
    assert names_person("manager Steve Castle")
    assert not names_person("coach house")
    assert kind_of_head("physical anthropologists") == "person"


def test_one_sentence_is_not_asked_for_twice_as_a_task() -> None:
    templates = [
        Template(f"t-{n}", text, "a page", 1, ("q-1",))
        for n, text in enumerate(("How do you <fi>do something</fi>?", "How do you identify <fi>a thing</fi>?"))
    ]
    page = Document("d-1", "To identify a service, enter its name or pass a service object.", "Set-Service")
    assert len(RelationGate(templates).allowed(page)) == 1
    assert [len(RelationGate([one]).allowed(page)) for one in templates] == [1, 1]
