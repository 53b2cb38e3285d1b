"""The card of a student, ``README.md`` in its folder: what it was made of, how, under which licences, and its figures.

In: what a training has noted. Out: Markdown whose front matter the Hugging Face hub reads. The decision a reader would
question: a student's licence is not chosen here. The card states that of the model it was made of, and counts those of
the rows; who publishes it has to see that they agree.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from fineinstructions import __version__
from fineinstructions.backends.hub import NONE_DECLARED, folder_licence, hub_facts
from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.cards import Tally, hub_licence, section, tally_rows
from fineinstructions.errors import FineInstructionsError
from fineinstructions.markdown import Markdown, code, table
from fineinstructions.silver.read import Origin
from fineinstructions.student_scores import Score

_TASKS = {
    "genericizer": "turns a user's query into an instruction template with slots and a compatible document description",
    "instantiator": "fills an instruction template from a document and answers by quoting it, or refuses with `null`",
    "embedder": "places documents and compatible document descriptions in one space, compared by cosine",
}


def student_card(
    student: str, base: ModelFolder, facts: dict[str, Any], scores: Sequence[Score], origins: Sequence[Origin]
) -> str:
    """The text of the card.

    Args:
        student: ``genericizer``, ``instantiator`` or ``embedder``.
        base: The model that the training began with.
        facts: What stands in ``training.json``.
        scores: Figures on held-out rows.
        origins: Where every row comes from.
    """
    licence = base_licence(base)
    name = base.name if base.revision else Path(base.name).name
    front: dict[str, Any] = {"license": hub_licence("" if licence == NONE_DECLARED else licence)}
    if base.revision:
        front["base_model"] = base.name
    is_encoder = student == "embedder"
    front["library_name"] = "sentence-transformers" if is_encoder else "transformers"
    front["pipeline_tag"] = "sentence-similarity" if is_encoder else "text-generation"
    made_of = [("begun with", name), ("revision", base.revision or "a folder"), ("its licence", licence)]
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# {student.capitalize()}\n",
        f"A student that {_TASKS[student]}, trained by fineinstructions {__version__} with the method of "
        "*FineInstructions* ([arXiv:2601.22146](https://arxiv.org/abs/2601.22146)). It works on data that a teacher "
        "made; what the teacher got wrong, it may have learned.\n",
        *section("What it was made of", table(("", ""), made_of)),
        *section("Data", _data(facts, origins)),
        *section("Settings", _settings(facts["settings"])),
        *section("Losses", _losses(facts["rounds"])),
        *section("Figures on held-out rows", _scores(scores)),
    ]
    return "\n".join(parts)


def base_licence(base: ModelFolder) -> str:
    """Licence of the model that a training begins with, as its card states it; the hub is asked for one there."""
    if not base.revision:
        return folder_licence(Path(base.name))
    try:
        return hub_facts("model", base.name, base.revision).licence
    except FineInstructionsError:
        return "unknown (the hub could not be asked)"


def _data(facts: dict[str, Any], origins: Sequence[Origin]) -> Iterator[str]:
    set_aside = facts["set_aside"]
    rows = [("read", facts["rows_read"]), *((f"set aside, {k}", n) for k, n in set_aside.items())]
    rows += [(f"trained on, {trained['name']}", trained["rows"]) for trained in facts["rounds"]]
    yield from table(("rows", "number"), rows)
    for title, values in (
        ("licence of the row", [origin.licence or "none named" for origin in origins]),
        ("source", [origin.source or "none named" for origin in origins]),
        ("teacher", [_teacher(origin.teacher) for origin in origins]),
    ):
        tally = Tally()
        for value, number in Counter(values).items():
            tally.add(value, number)
        yield ""
        yield from table((title, "rows"), tally_rows(tally))


def _teacher(stated: str) -> str:
    try:
        plain = json.loads(stated) if stated else {}
    except ValueError:
        return stated
    return str(plain.get("model", stated)) if isinstance(plain, dict) and plain else stated or "none named"


def _settings(settings: dict[str, Any]) -> Iterator[str]:
    left_out = ("data", "student", "model", "revision")
    rows = ((code(key), code(json.dumps(value))) for key, value in settings.items() if key not in left_out)
    return table(("key", "value"), rows)


def _losses(rounds: Sequence[dict[str, Any]]) -> Iterator[str]:
    names = ("first_loss", "last_loss", "held_out_before", "held_out_after")
    rows = ((r["name"], r["steps"], *(_number(r[name], 4) for name in names)) for r in rounds)
    return table(("round", "steps", "first", "last", "held out, before", "held out, after"), rows)


def _scores(scores: Sequence[Score]) -> Iterator[str]:
    if not scores:
        yield "None: the data have no rows with `split: validation`."
        return
    rows = ((s.name, _number(s.value), s.num_rows, _number(s.target), s.source) for s in scores)
    yield from table(("figure", "value", "rows", "should reach", "says who"), rows)


def _number(value: float | None, digits: int = 3) -> Markdown:
    return Markdown("" if value is None else f"{value:.{digits}f}")
