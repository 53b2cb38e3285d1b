"""Relations that descriptions ask for, each with the words that ask and the words that answer.

Left, the name of the relation. In `heads`, words that ask for it or stand in a heading above its answer. In `cues`,
words of sentences that answer it without a heading. The encoder reserves one dimension for each relation.
"""

from typing import NamedTuple


class Relation(NamedTuple):
    """Words of one relation, each as it is written (they are stemmed before use)."""

    heads: tuple[str, ...]
    cues: tuple[str, ...]


def _relation(heads: str, cues: str = "") -> Relation:
    return Relation(tuple(heads.split()), tuple(cues.split()))


RELATIONS: dict[str, Relation] = {
    "symptom": _relation("symptoms signs manifestations", "pain fever fatigue nausea swelling rash vomiting weakness"),
    "cause": _relation("causes cause etiology genetic mutation", "caused causing triggered due result because"),
    "treatment": _relation("treatment treatments therapy cure remedy", "treated surgery medicine medication drug doctor"),
    "diagnosis": _relation("diagnosis exams tests diagnosed", "biopsy blood imaging physical examination detect"),
    "prevention": _relation("prevention prevent preventing", "avoid vaccine lower protect"),
    "risk": _relation("risk susceptibility", "likely age smoking"),
    "outlook": _relation("outlook prognosis", "survival recovery chance"),
    "inheritance": _relation("inheritance inherited hereditary", "autosomal recessive dominant gene parent"),
    "frequency": _relation("frequency prevalence rare", "estimated percent worldwide individuals"),
    "complication": _relation("complications complication", "damage failure lead"),
    "research": _relation("research trials", "study studies clinical institute scientists"),
    "ingredient": _relation("ingredients ingredient", "tablespoon teaspoon cup salt pepper butter oil garlic flour sugar grams onion"),
    "make": _relation("directions recipe cook bake preparation", "heat stir minutes oven boil simmer pan mix add pour"),
    "syntax": _relation("syntax usage", "parameter string commonparameters"),
    "command": _relation("cmdlet command synopsis function", "gets sets returns specifies cmdlet pipeline"),
    "example": _relation("example examples", "shows output following demonstrates"),
    "step": _relation("steps procedure process method instructions task", "step first then next following click select"),
    "history": _relation("history background origins past", "century early later period became first"),
    "founding": _relation("founded established formed founder founding foundation creation created", "founded established formed incorporated opened began"),
    "location": _relation("location located geography place situated", "north south east west kilometres miles river border situated"),
    "population": _relation("population demographics inhabitants census", "census inhabitants population households density"),
    "climate": _relation("climate weather temperature", "rain summer winter temperatures precipitation"),
    "economy": _relation("economy industry economic", "trade agriculture exports companies employment"),
    "education": _relation("education school university educated", "school university college studied graduated"),
    "birth": _relation("born birth birthplace birthday early life", "born raised family parents childhood"),
    "death": _relation("death died dies killed", "died buried funeral death killed"),
    "marriage": _relation("married wife husband family personal children spouse", "married daughter son wife divorced"),
    "career": _relation("career profession job occupation", "joined signed appointed worked career"),
    "team": _relation("season team club league played player coach", "goals scored match league coach season"),
    "event": _relation("won winner championship competition results tournament", "won defeated final round medal champion"),
    "election": _relation("election president government politics elected leader", "elected party votes minister parliament"),
    "war": _relation("war battle fought army military", "troops army forces attack enemy soldiers"),
    "law": _relation("law act rights amendment legal", "law court act congress constitution rights"),
    "cast": _relation("cast played plays character actor starring", "role portrayed starring cast actress"),
    "plot": _relation("plot story summary storyline", "tells finds decides returns discovers"),
    "release": _relation("released release published air aired premiere", "released album single chart published"),
    "song": _relation("song album sings sang singer band music lyrics", "song album band recorded vocals"),
    "author": _relation("wrote author written writer book novel", "wrote novel published author book"),
    "award": _relation("awards award honours prize", "awarded nominated prize received"),
    "name": _relation("name named nickname etymology meaning term word", "derived refers latin greek"),
    "definition": _relation("definition define defined description overview what mean", "type form kind refers defined consists"),
    "type": _relation("types kinds classification stages categories", "divided types several classified include groups"),
    "part": _relation("parts structure components made consist anatomy", "consists composed contains layer parts made"),
    "function": _relation("function purpose role used uses works", "used allows provides helps enables serves"),
    "effect": _relation("effects impact consequences influence affect", "affected led resulted increase changes"),
    "benefit": _relation("advantages benefits importance significance important pros disadvantages", "important benefit advantage improve"),
    "difference": _relation("difference different compare comparison versus similarities", "unlike whereas differ while contrast"),
    "feature": _relation("characteristics features properties traits", "characterized feature distinctive typical"),
    "responsibility": _relation("responsibilities responsibility duties commander operations planning", "commander staff unit responsible operations ensure"),
    "discovery": _relation("discovered invented inventor invention discovery", "discovered invented patent developed scientist"),
    "habitat": _relation("habitat diet behaviour animals plants species", "species found feed forests females prey"),
    "number": _relation("number cost price amount", "total million number average"),
    "discussion": _relation("discussion discuss meeting decision opinion summarize", "yeah okay marketing uh um chair minister"),
}  # fmt: skip
