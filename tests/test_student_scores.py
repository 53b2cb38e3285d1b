"""Figures of students against replies whose worth is known, through the ordinary operators and a server."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pipeline_inputs import in_process
from silver_rows import PLANTS, genericizer_rows, instantiator_rows

from fineinstructions.backends.llm import LlmConfig
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.silver.read import Example
from fineinstructions.silver.rows import Message
from fineinstructions.student_scores import (
    examine_genericizer,
    examine_instantiator,
    genericizer_objection,
    instantiator_objection,
)


def example(row: object) -> Example:
    return Example(row.row_id, row.split, row.prompt, row.reply)  # type: ignore[attr-defined]


def asked_of(server: ScriptedServer) -> LlmConfig:
    return LlmConfig(base_url=server.base_url, model="student", max_reasks=0, structured="none")


def figures(scores: list[object]) -> dict[str, tuple[float | None, int]]:
    return {s.name: (None if s.value is None else round(s.value, 4), s.num_rows) for s in scores}  # type: ignore[attr-defined]


def test_a_genericizer_is_scored_by_what_the_pipeline_makes_of_its_replies() -> None:
    description = ', "compatible_document_description": "Plants."}'
    replies = [
        '{"template": "Is <fi>a plant</fi> tall?"' + description,  # as the teacher
        '{"template": "Is <fi>a plant</fi> <fi>high</fi>?"' + description,  # one word too many in slots
        '{"template": "Is <fi>a plant tall?"' + description,  # a slot that never ends
        '{"template": "Is it tall?"' + description,  # no slot
        "Is a plant tall?",  # no JSON
    ]
    rows = [example(row) for row in genericizer_rows(len(replies))]
    by_query = {row.prompt[-1].content: reply for row, reply in zip(rows, replies, strict=True)}
    with ScriptedServer(lambda body: by_query[body["messages"][-1]["content"]]) as server:
        found = figures(list(examine_genericizer(rows, asked_of(server))))
    assert found == {
        "valid JSON": (0.8, 5),
        "balanced slots": (0.75, 4),
        "accepted templates": (0.4, 5),
        "slot agreement": (round((1 + 2 / 3) / 2, 4), 2),
        "same number of slots": (0.5, 2),
    }


def test_an_instantiator_is_scored_by_what_the_pipeline_makes_of_its_replies() -> None:
    def reply(plant: str, answer: str) -> str:
        return json.dumps({"instruction": f"Is {plant} tall?", "answer": answer})

    rows = [example(row) for row in instantiator_rows(1, 8)]  # the second and the sixth are refusals
    names = PLANTS[:8]
    replies = [
        rows[0].reply,  # as the teacher
        "null",  # rightly refused
        "null",  # wrongly refused
        reply(names[3], f"<excerpt>Nobody has ever measured a {names[3]}.</excerpt>"),  # quotes what is not there
        reply("it", f"<excerpt>The {names[4]} grows to forty metres.</excerpt>"),  # another value in the slot
        reply("rain", "<excerpt>It rains.</excerpt>"),  # should have refused
        reply(names[6], f"Very. As they say, <excerpt>The {names[6]} grows</excerpt>"),  # quotes too little
        "I cannot.",  # no JSON
    ]
    by_prompt = {row.prompt[-1].content: said for row, said in zip(rows, replies, strict=True)}
    # both refusals show the same document: whichever is asked first is refused
    rained = iter(["null", replies[5]])

    def brain(body: Mapping[str, Any]) -> str:
        content = body["messages"][-1]["content"]
        return next(rained) if "It rains." in content else by_prompt[content]

    with ScriptedServer(brain) as server:
        found = figures(list(examine_instantiator(rows, asked_of(server))))
    assert found["valid JSON"] == (0.875, 8)
    assert found["slots filled"] == (1.0, 5)
    assert found["slot agreement"] == (0.75, 4)
    assert found["excerpt validity"] == (0.8, 5)
    assert found["grounded answers"] == (0.6, 5)
    assert found["refusal precision"] == (0.5, 2)
    assert found["refusal recall"] == (0.5, 2)
    ratio, number = found["excerpt ratio"]
    assert number == 4
    assert ratio is not None and 0.8 < ratio < 0.95


def test_only_the_published_prompt_is_trained_on() -> None:
    query, filled = example(genericizer_rows(1)[0]), example(instantiator_rows(1, 1)[0])
    assert (genericizer_objection(query), instantiator_objection(filled)) == ("", "")
    system = (Message("system", "Answer."), *query.prompt)
    assert genericizer_objection(Example("r", "train", system, query.reply)) == "not_published_prompt"
    assert genericizer_objection(Example("r", "train", query.prompt, "null")) == "no_template"
    assert instantiator_objection(query) == "not_published_prompt"
    spaced = (Message("user", filled.prompt[0].content.replace('", "', '","')),)
    assert instantiator_objection(Example("r", "train", spaced, filled.reply)) == "not_published_prompt"
    assert instantiator_objection(Example("r", "train", filled.prompt, "no")) == "reply_format"


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fineinstructions.students._PACKAGES", ("numpy", "no_such_package"))
    (tmp_path / "r.yaml").write_text("{data: nowhere, model: nowhere}")
    code, _, errors = in_process("train", "embedder", tmp_path / "r.yaml", "--out", tmp_path / "student")
    assert code == 2
    assert "training needs no-such-package; run pip install 'fineinstructions[train]'" in errors


@pytest.mark.parametrize("number", [0, 1])
def test_no_rows_give_no_figures_and_no_errors(number: int) -> None:
    with ScriptedServer(lambda _: "null") as server:
        rows = [example(row) for row in instantiator_rows(1, 2)[1 : 1 + number]]
        found = figures(list(examine_instantiator(rows, asked_of(server))))
    assert found["refusal recall"] == ((1.0, 1) if number else (None, 0))
    assert found["excerpt ratio"] == (None, 0)
