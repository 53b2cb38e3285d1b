"""What a served judge tells beside its score: probabilities of the other scores, and what it is served for."""

import json
import logging
from dataclasses import replace

import pytest
from chat_requests import settings
from pairs_to_judge import DOCUMENT, DRAFT, TEMPLATE

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.llm import ChatClient
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.pairs.judge import JudgeConfig, PromptedJudge, judge
from fineinstructions.records import Pair, from_table, schema_of, to_table

REPLIES = {
    "json": '{"feedback": "3 of 4 parts, \\"score\\": 1.", "score": 4}',
    "flow": "<feedback>3 of 4 parts, 1 of them odd.</feedback>\n<score>4</score>",
    "prometheus": "Feedback: 3 of 4 parts, 1 of them odd. [RESULT] 4",
}
AROUND_FOUR = (1 / 8 * 1 + 1 / 4 * 2 + 1 / 2 * 3 + 1 * 4 + 1 / 2 * 5) / (1 / 8 + 1 / 4 + 1 / 2 + 1 + 1 / 2)
"""What the scripted server's probabilities around a 4 come to."""


def judged(server, config, cache=None, **llm):
    with ChatClient(settings(server, structured="none", **llm), cache) as client:
        (pair,) = judge([(DRAFT, TEMPLATE, DOCUMENT)], PromptedJudge(client, config))
    return pair


@pytest.mark.parametrize("protocol", sorted(REPLIES))
def test_the_expected_score_stands_beside_the_score(protocol, tmp_path):
    with ScriptedServer(lambda body: REPLIES[protocol]) as server:
        first = judged(server, JudgeConfig(protocol=protocol), ResponseCache(tmp_path))
        again = judged(server, JudgeConfig(protocol=protocol), ResponseCache(tmp_path))
    assert first == again
    assert first.judge_score == 4
    assert first.judge_expected_score == pytest.approx(AROUND_FOUR, abs=1e-4)


@pytest.mark.parametrize(("asked", "given"), [(True, "ignore"), (True, "reject"), (False, "give")])
def test_a_judge_without_probabilities_scores_all_the_same(asked, given):
    with ScriptedServer(lambda body: REPLIES["json"], logprobs=given, keep_bodies=True) as server:
        pair = judged(server, JudgeConfig(logprobs=asked))
        assert (pair.judge_score, pair.judge_expected_score) == (4, None)
        assert "logprobs" not in server.bodies[-1]


def test_pairs_of_older_runs_have_none():
    with ScriptedServer(lambda body: REPLIES["json"]) as server:
        pair = judged(server, JudgeConfig())
    table = to_table([pair], Pair)
    names = schema_of(Pair).names
    assert names.index("judge_expected_score") == names.index("judge_score") + 1
    assert list(from_table(table, Pair)) == [pair]
    older = table.drop_columns(["judge_expected_score"])
    assert list(from_table(older, Pair)) == [replace(pair, judge_expected_score=None)]


@pytest.mark.parametrize(
    ("served", "set_", "recorded"), [(None, None, None), (8192, None, 8192), (8192, 4096, 4096), (None, 2048, 2048)]
)
def test_what_the_judge_is_served_for_is_recorded_with_every_score(served, set_, recorded):
    with ScriptedServer(lambda body: REPLIES["json"], models=["m", "n"], max_model_len=served) as server:
        pair = judged(server, JudgeConfig(max_model_len=set_))
    assert json.loads(pair.models)["judge"]["max_model_len"] == recorded


def test_a_server_that_does_not_list_its_models_costs_nothing():
    with ScriptedServer(lambda body: REPLIES["json"], models=["m"], max_model_len=8192) as server:
        other = settings(server, model="m")
        with ChatClient(other) as client:
            model = PromptedJudge(client, JudgeConfig(llm={"base_url": server.base_url.replace("/v1", "/v2")}))
            assert model._max_model_len is None
        assert server.requests["/v2/models"] >= 1


def test_what_a_judge_is_called_asks_no_server():
    with ScriptedServer() as server, ChatClient(settings(server)) as client:
        described = json.loads(PromptedJudge(client, JudgeConfig()).model)
        assert "max_model_len" not in described
        assert not server.requests


@pytest.mark.parametrize(
    ("model", "served", "warned"),
    [
        ("flowaicom/Flow-Judge-v0.1", 8192, True),
        ("microsoft/Phi-3.5-mini-instruct", 131072, True),
        ("flowaicom/Flow-Judge-v0.1", 4096, False),
        ("flowaicom/Flow-Judge-v0.1", None, False),
        ("prometheus-7b", 8192, False),
    ],
)
def test_a_phi_3_judge_that_is_served_for_long_texts_is_warned_of_once(model, served, warned, caplog):
    items = [(replace(DRAFT, document_id=f"d-{n}"), TEMPLATE, DOCUMENT) for n in range(3)]
    with (
        ScriptedServer(lambda body: REPLIES["json"], models=[model], max_model_len=served) as server,
        ChatClient(settings(server, model=model)) as client,
        caplog.at_level(logging.WARNING),
    ):
        served_judge = PromptedJudge(client, JudgeConfig())
        for _ in range(2):
            assert len(list(judge(items, served_judge))) == 3
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("fineinstructions")]
    assert [model in line and "--max-model-len 4096" in line for line in lines] == [True] * warned
