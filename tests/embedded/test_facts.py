"""Facts about named things: dates of acts, makers, sorts, casts, tasks and numbers."""

import pytest

from fineinstructions.embedded.relations import RelationGate, evidence, wanted
from fineinstructions.embedded.relations.fit import fit
from fineinstructions.records import Document, Template

FILM = "Night Train is a 1999 American thriller film directed by Ada Miller, written by Bo Reed and released in 2001.\n"
SONG = "Blue Rain is a song by Ada Miller, released in 1999.\n"
PERSON = "Ada Miller (born 5 May 1970) is an English chemist. "
CLUB = "Foxton Rovers is an English football club based in Foxton, England. "


def document(text, title="", name="d-1"):
    return Document(name, text, title)


def filled(template, text, title=""):
    """Every way in which the document fills the template."""
    asked = wanted(template)
    assert asked is not None, template
    found = evidence(document(text, title, f"{template}-{title}")).get(asked.key, ())
    return [words for item in found if (words := fit(asked, item)) is not None]


@pytest.mark.parametrize(
    ("template", "title", "text", "words"),
    [
        ("Who directed <fi>a film</fi>?", "Night Train", FILM, {0: "Night Train"}),
        ("Who wrote <fi>a book</fi>?", "Night Train", FILM, {0: "Night Train"}),
        ("When was <fi>a film</fi> released?", "Night Train", FILM, {0: "Night Train"}),
        (
            "What type of <fi>a topic</fi> is <fi>another topic</fi>?",
            "Night Train",
            FILM,
            {1: "Night Train", 0: "film"},
        ),
        ("Who sang <fi>a song</fi>?", "Blue Rain", SONG, {0: "Blue Rain"}),
        ("Who sings <fi>a song</fi>?", "Blue Rain", SONG, {0: "Blue Rain"}),
        ("Where is <fi>an organisation</fi> based?", "Foxton Rovers", CLUB, {0: "Foxton Rovers"}),
        (
            "When did <fi>a person</fi> join <fi>a topic</fi>?",
            "Ada Miller",
            PERSON + "She joined the Foxton Rovers in 1999. She left.",
            {0: "Ada Miller", 1: "the Foxton Rovers"},
        ),
        (
            "What year did <fi>a person</fi> move to <fi>a place</fi>?",
            "Ada Miller",
            PERSON + "In 1999, Miller moved to New York to study.",
            {0: "Ada Miller", 1: "New York"},
        ),
        (
            "How did <fi>a person</fi> die?",
            "Ada Miller",
            PERSON + "Ada Miller died of a stroke in Foxton.",
            {0: "Ada Miller"},
        ),
        (
            "What did <fi>a person</fi> discover?",
            "Ada Miller",
            PERSON + "She discovered a new salt of iron.",
            {0: "Ada Miller"},
        ),
        (
            "How do you <fi>do something</fi>?",
            "",
            "To list the jobs of a session, use the Get-Job cmdlet without parameters.",
            {0: "list the jobs of a session"},
        ),
        (
            "Who is responsible for <fi>a topic</fi>?",
            "",
            "The signal officer is responsible for planning the network of a brigade.",
            {0: "planning the network of a brigade"},
        ),
        (
            "How many planets are in <fi>a topic</fi>?",
            "",
            "There are eight planets in the Solar System, and five dwarfs.",
            {0: "the Solar System"},
        ),
        (
            "How big is <fi>a place</fi>?",
            "Foxton",
            "Foxton is a town in Kent. It covers 12 square kilometres.",
            {0: "Foxton"},
        ),
    ],
)
def test_facts_fill_templates(template, title, text, words):
    assert words in filled(template, text, title)


@pytest.mark.parametrize(
    ("template", "title", "text"),
    [
        ("Who found <fi>a topic</fi>?", "Foxton", "Foxton is a town in a district founded by Ada Miller in 1872."),
        ("Who was the founder of <fi>a topic</fi>?", "Foxton", "Foxton is a town in a district founded by Ada Miller."),
        ("When did <fi>a person</fi> join <fi>a topic</fi>?", "", "The company joined Foxton Rovers in 1999."),
        ("When did <fi>a person</fi> join <fi>a topic</fi>?", "", "Ada Miller joined the side without fuss."),
        ("Who started <fi>a topic</fi>?", "", "Ada Miller started strongly in 1999, but lost."),
        ("How many types of <fi>a topic</fi> are there?", "", "There are many kinds of salts: simple, double."),
        ("Where did <fi>a topic</fi> take place?", "", "Auditions took place in Leeds in 1999. Auditions were long."),
        ("What is the goal of <fi>a topic</fi>?", "", "The goal of the HEPE is to improve the health of workers."),
        (
            "What is <fi>a topic</fi>?",
            "Gout",
            "A Common Pain With Age Gout is a disease of the joints that hurts. Gout.",
        ),
        ("What is <fi>a topic</fi>?", "", "Lignin itself is a polymer that is hard to break. Lignin itself."),
        ("Who won <fi>an event</fi>?", "", "Ada Miller won silver in the relay."),
        (
            "What type of <fi>a topic</fi> is <fi>another topic</fi>?",
            "",
            "Uric acid is a compound similar to purines. Uric acid.",
        ),
        ("How do you <fi>do something</fi>?", "", "To change this setting, use the menu at the top."),
        (
            "Who is responsible for <fi>a topic</fi>?",
            "",
            "The officer is responsible for planning, buying and selling.",
        ),
        ("How many games are in <fi>a topic</fi>?", "Ada Miller", PERSON + "She has 10 games."),
        (
            "What was <fi>a person</fi> called?",
            "Ada Miller",
            "Ada Miller is a player. She was called up to the squad in 1999.",
        ),
        ("What are the types of <fi>a topic</fi>?", "", "Synovial joints have three types. Synovial joints move."),
        (
            "What is <fi>a topic</fi>?",
            "",
            "A potato is a stem tuber of the nightshade, while parsnip is a root. A potato.",
        ),
    ],
)
def test_facts_that_are_not_told(template, title, text):
    assert filled(template, text, title) == []


def test_cast_answers_who_plays_whom():
    cast = "- Ada Miller as Captain Jane Frost, who drives the train.\n- Bo Reed\n"
    text = f"Night Train is a 1999 film.\n\n## Cast\n\n{cast}"
    asked = "Who played <fi>a character</fi> in <fi>a film or show</fi>?"
    assert filled(asked, text, "Night Train") == [{0: "Captain Jane Frost", 1: "Night Train"}]
    role = "Who does <fi>a person</fi> play in <fi>a film</fi>?"
    assert filled(role, text, "Night Train") == [{0: "Ada Miller", 1: "Night Train"}]


def test_a_source_in_brackets_does_no_harm_but_a_figure_does():
    text = (
        "An ambush is an attack by fire from concealed positions on a moving enemy (FM 3-90-1). An ambush is short.\n"
    )
    assert "definition" in evidence(document(text, name="citation"))
    assert "definition" not in evidence(document(text.replace("FM 3-90-1", "see figure 3"), name="figure"))


def test_two_slots_pass_the_gate():
    bank = [Template("t-1", "When did <fi>a person</fi> join <fi>a topic</fi>?", "a page", 2, ("q-1",))]
    text = PERSON + "She joined Foxton Rovers in 1999. She left."
    assert RelationGate(bank).allowed(document(text, "Ada Miller", "gate")).tolist() == [0]
