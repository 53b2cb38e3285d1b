"""The whole job by batch files: requests written, answered by a real server, shuffled, doubled, lost, read in again."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from batch_answers import answer
from pipeline_inputs import EXAMPLES, content, in_process, look, output_json, rows, take_documents, write_recipe

import fineinstructions
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.cli import EXIT_MISTAKE, EXIT_PENDING

TABLES = ("pairs", "matches", "templates", "rejected")
MAX_ROUNDS = 30


def recipe_for(folder: Path, documents: int = 5, queries: int = 12, **llm: Any) -> Path:
    return write_recipe(
        folder,
        take_documents(folder / "documents.parquet", documents, every=40),
        queries={"path": str(EXAMPLES / "queries.parquet"), "limit": queries},
        llm={"model": "scripted-large", **llm},
        genericize={"model": "openai", "llm": {"model": "scripted-small"}},
        instantiate={"model": "openai"},
        judge={"model": "openai", "max_template_share": 1.0},
        retrieve={"min_cosine": 0.0},
        engine={"workers": 0, "unit_rows": 2, "query_unit_rows": 5},
    )


def tables(run: Path) -> dict[str, dict[str, bytes]]:
    return {name: content(run / name) for name in TABLES}


def request_files(run: Path) -> list[Path]:
    return sorted((run / "batches" / "requests").iterdir())


@pytest.fixture(scope="module")
def asked_directly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same recipe with a server behind it."""
    folder = tmp_path_factory.mktemp("direct")
    with ScriptedServer(logprobs="ignore") as server:
        code, _, errors = in_process("run", recipe_for(folder, base_url=server.base_url), "--out", folder / "run")
    assert code == 0, errors
    return folder / "run"


class Service:
    """A careless batch service: it shuffles and doubles rows, loses some, fails some, and tears the last line off."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server, self._random = server, random.Random(7)
        self.rounds: list[set[str]] = []
        self.num_lost = self.num_failed = 0

    def do(self, run: Path) -> None:
        asked = [json.loads(line) for path in request_files(run) for line in path.read_text("utf-8").splitlines()]
        ids = [row["custom_id"] for row in asked]
        assert len(set(ids)) == len(ids)
        self.rounds.append(set(ids))
        good, failed = [], []
        for row in asked:
            fate = self._random.random()
            if fate < 0.2:
                self.num_lost += 1
            elif fate < 0.4:
                self.num_failed += 1
                failed.append(self._failure(row["custom_id"]))
            else:
                good += [answer(row, self._server)] * self._random.choice([1, 1, 2, 3])
        someone_elses = answer(asked[0], self._server)["response"]
        good += [{"custom_id": "mine-1", "response": someone_elses}, {"custom_id": "0" * 64, "response": someone_elses}]
        good += [["no", "row"], None]
        self._random.shuffle(good)
        results, number = run / "batches" / "results", len(self.rounds)
        lines = [json.dumps(row).encode() + b"\n" for row in good]
        half = len(lines) // 2
        (results / f"{9000 - number}-b.jsonl").write_bytes(b"".join(lines[:half]) + b'{"custom_id": "torn\n\n')
        (results / f"out-{number}.jsonl").write_bytes(b"".join(lines[half:])[:-20])
        (results / f"errors {number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in failed))

    def _failure(self, custom_id: str) -> dict[str, Any]:
        if self._random.random() < 0.5:
            return {"custom_id": custom_id, "response": None, "error": {"code": "batch_expired", "message": "expired"}}
        body = {"error": {"message": "overloaded"}}
        return {"custom_id": custom_id, "response": {"status_code": 503, "body": body}, "error": None}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_goes_on_round_by_round_to_the_same_pairs(tmp_path: Path, asked_directly: Path, workers: int) -> None:
    recipe, run = recipe_for(tmp_path, engine="batch", max_retries=MAX_ROUNDS), tmp_path / "run"
    with ScriptedServer() as server:
        service = Service(server)
        for _ in range(MAX_ROUNDS):
            code, out, errors = in_process("run", recipe, "--out", run, "--workers", str(workers))
            if code == 0:
                break
            assert (code, out) == (EXIT_PENDING, ""), errors
            line = errors.splitlines()[-1]
            assert f"submit {run}/batches/requests" in line
            assert f"into {run}/batches/results, then run the same command again" in line
            service.do(run)
    assert code == 0
    assert request_files(run) == []
    assert service.num_lost > 5
    assert service.num_failed > 5
    assert len(service.rounds) > 3
    assert tables(run) == tables(asked_directly)
    assert fineinstructions.verify(run) == []
    assert {row["failed"] for row in rows(run, "rejected")} <= {False}
    assert not any(figure["failed"] for figure in output_json(look("status", run, "--json"))["funnel"])


def test_without_results_the_same_requests_wait_and_nothing_is_committed(tmp_path: Path) -> None:
    recipe, run = recipe_for(tmp_path, engine="batch"), tmp_path / "run"
    assert in_process("run", recipe, "--out", run)[0] == EXIT_PENDING
    before = {path.name: path.read_bytes() for path in request_files(run)}
    assert list(before) == ["01-scripted-small-0001.jsonl"]
    lines = [line for found in before.values() for line in found.splitlines()]
    assert len(lines) == 12
    assert lines == sorted(lines, key=lambda line: json.loads(line)["custom_id"])
    assert set(json.loads(lines[0])) == {"custom_id", "method", "url", "body"}
    assert not list((run / "units" / "genericize").glob("*/manifest.json"))
    code, _, errors = in_process("run", recipe, "--out", run)
    assert code == EXIT_PENDING
    assert "12 requests of phase genericize wait" in errors
    assert json.loads(in_process("status", run, "--json")[1])["waiting_requests"] == 12
    assert (
        f"batch files: 12 requests in 1 file without an answer, see {run}/batches/requests"
        in in_process("status", run)[1]
    )
    assert {path.name: path.read_bytes() for path in request_files(run)} == before


def test_a_request_that_fails_for_good_is_a_failed_record_until_it_is_tried_again(tmp_path: Path) -> None:
    recipe, run = recipe_for(tmp_path, engine="batch", max_retries=1), tmp_path / "run"
    judged = False
    with ScriptedServer() as server:
        for number in range(MAX_ROUNDS):
            code, _, errors = in_process("run", recipe, "--out", run)
            if code != EXIT_PENDING:
                break
            asked = [json.loads(line) for path in request_files(run) for line in path.read_text("utf-8").splitlines()]
            answers = [answer(row, server) for row in asked]
            for row in answers if judged_by(asked) else ():
                judged = True
                row |= {"response": {"status_code": 500, "body": None}, "error": {"message": "lost my way"}}
            text = "".join(json.dumps(row) + "\n" for row in answers)
            (run / "batches" / "results" / f"{number}.jsonl").write_text(text)
        assert judged
        assert code == 1
        funnel = {row["stage"]: row for row in output_json(look("status", run, "--json"))["funnel"]}
        lost = funnel["judge"]["failed"]["transport"]
        assert lost == funnel["judge"]["in"] > 0
        assert f"{lost} records failed; run again with --retry-failed" in errors
        code, _, errors = in_process("run", recipe, "--out", run, "--retry-failed")
        assert code == EXIT_PENDING
        assert f"{lost} requests of phase pairs wait" in errors
        asked = [json.loads(line) for path in request_files(run) for line in path.read_text("utf-8").splitlines()]
        text = "".join(json.dumps(answer(row, server)) + "\n" for row in asked)
        (run / "batches" / "results" / "a better day.jsonl").write_text(text)
    assert in_process("run", recipe, "--out", run, "--retry-failed")[0] == 0
    assert fineinstructions.verify(run) == []
    assert rows(run, "pairs")


def judged_by(asked: list[dict[str, Any]]) -> bool:
    return all('"answer"' in row["body"]["messages"][-1]["content"] for row in asked)


def test_batch_files_outside_a_run_are_refused(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, engine="batch")
    (tmp_path / "text.txt").write_text("Rivers carry sand until they slow down.")
    code, _, errors = in_process("try", tmp_path / "text.txt", "--recipe", recipe)
    assert code == EXIT_MISTAKE
    assert "llm.engine: genericize asks by batch files, which only a run does" in errors
