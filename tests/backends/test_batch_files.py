"""Batch files as files: how requests are split, and what is made of awkward results."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_requests import error_of, request

from fineinstructions.backends import batch_files
from fineinstructions.backends.batch_files import finish_round, start_round
from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.llm import ChatClient, LlmConfig
from fineinstructions.errors import ConfigError

LLM = LlmConfig(engine="batch", model="m", max_retries=1)


def note(folder: Path, texts: list[str], **changes: Any) -> dict[str, str]:
    """Ask, and give the id of every text's request as the files have it."""
    llm = LLM.model_copy(update=changes)
    with ChatClient(llm, ResponseCache(folder / "cache"), batches_dir=folder / "batches") as client:
        for future in [client.submit(request(text)) for text in texts]:
            assert error_of(future).kind == "pending"
    rows = [json.loads(line) for path in finish_round(folder / "batches").files for line in path.open(encoding="utf-8")]
    return {row["body"]["messages"][0]["content"]: row["custom_id"] for row in rows}


def reply(text: str, **more: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"status_code": 200, "body": {"choices": [choice], **more}}


def outcome(folder: Path, text: str, rows: list[Any], name: str = "r.jsonl", **changes: Any) -> Any:
    """What a request is answered with after a round with some rows of results."""
    place = folder / "batches" / "results" / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with ResponseCache(folder / "cache") as replies:
        start_round(folder / "batches", replies)
    llm = LLM.model_copy(update=changes)
    with ChatClient(llm, ResponseCache(folder / "cache"), batches_dir=folder / "batches") as client:
        future = client.submit(request(text))
        return future.exception(20) or future.result()


def test_files_hold_one_model_each_and_no_more_than_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_files, "MAX_FILE_REQUESTS", 4)
    note(tmp_path, [f"text {n}" for n in range(10)], model="org/large-8B")
    note(tmp_path, ["é \u2028 \U0001f600"], model="small")
    files = finish_round(tmp_path / "batches").files
    assert [path.name for path in files] == [
        "01-org-large-8B-0001.jsonl", "01-org-large-8B-0002.jsonl", "01-org-large-8B-0003.jsonl", "02-small-0001.jsonl",
    ]  # fmt: skip
    lines = [path.read_text("utf-8").split("\n")[:-1] for path in files]
    assert [len(found) for found in lines] == [4, 4, 2, 1]
    assert [{json.loads(line)["body"]["model"] for line in found} for found in lines] == [{"org/large-8B"}] * 3 + [
        {"small"}
    ]
    monkeypatch.setattr(batch_files, "MAX_FILE_BYTES", 2 * len(lines[0][0]) + 10)
    assert [len(path.read_text().splitlines()) for path in finish_round(tmp_path / "batches").files[:5]] == [2] * 5


def test_requests_of_several_processes_are_written_once(tmp_path: Path) -> None:
    first = note(tmp_path, ["a", "b"])
    both = note(tmp_path, ["b", "c"])
    assert sorted(both) == ["a", "b", "c"]
    assert both["a"] == first["a"]
    with ResponseCache(tmp_path / "cache") as replies:
        start_round(tmp_path / "batches", replies)
    assert finish_round(tmp_path / "batches").num_requests == 0


@pytest.mark.parametrize(
    ("response", "error", "kind"),
    [
        ({"status_code": 400, "body": {"error": {"message": "maximum context length is 8 tokens"}}}, None, "too_long"),
        ({"status_code": 400, "body": {"error": {"code": "content_filter", "message": "no"}}}, None, "refusal"),
        ({"status_code": 422, "body": {"error": {"message": "odd field"}}}, None, "request"),
        ({"status_code": 400}, {"message": "odd field"}, "request"),
        ({"status_code": 429, "body": {"error": {"message": "slow down"}}}, None, "pending"),
        ({"status_code": 500, "body": None}, None, "pending"),
        ({"status_code": 401, "body": {}}, None, "pending"),
        (None, {"code": "batch_expired", "message": "expired"}, "pending"),
        ({"status_code": 200, "body": {"choices": []}}, None, "pending"),
        ({"status_code": 200, "body": "text"}, None, "pending"),
        (reply("hi", usage={"prompt_tokens": float("inf")}), None, "pending"),
        (
            reply("cut") | {"body": {"choices": [{"message": {"content": "cut"}, "finish_reason": "length"}]}},
            None,
            "length",
        ),
    ],
)
def test_every_kind_of_failed_row(tmp_path: Path, response: Any, error: Any, kind: str) -> None:
    row = {"custom_id": note(tmp_path, ["hello"])["hello"], "response": response, "error": error}
    assert outcome(tmp_path, "hello", [row]).kind == kind


def test_a_success_counts_whatever_failures_stand_around_it(tmp_path: Path) -> None:
    key = note(tmp_path, ["hello"])["hello"]
    bad = {"custom_id": key, "response": None, "error": {"message": "lost"}}
    good = {
        "custom_id": key,
        "response": reply("HELLO", usage={"prompt_tokens": 3, "completion_tokens": 2}),
        "error": None,
    }
    found = outcome(tmp_path, "hello", [bad, good, bad, {**good, "response": reply("another")}])
    assert (found.text, found.prompt_tokens, found.completion_tokens) == ("HELLO", 3, 2)


def test_a_request_that_fails_in_every_round_is_given_up(tmp_path: Path) -> None:
    key = note(tmp_path, ["hello"])["hello"]
    bad = {"custom_id": key, "response": None, "error": {"message": "lost"}}
    assert outcome(tmp_path, "hello", [bad, bad], "round 1.jsonl").kind == "pending"
    error = outcome(tmp_path, "hello", [bad], "round 2.jsonl")
    assert (error.kind, "lost (2 rounds)" in str(error)) == ("transport", True)
    with ResponseCache(tmp_path / "cache") as replies:
        assert start_round(tmp_path / "batches", replies, forget_failures=True).num_failed == 1
    assert note(tmp_path, ["hello"]) == {"hello": key}


def test_what_is_no_result_is_counted_and_passed_over(tmp_path: Path) -> None:
    key = note(tmp_path, ["hello"])["hello"]
    results = tmp_path / "batches" / "results"
    results.mkdir(parents=True)
    good = json.dumps({"custom_id": key, "response": reply("HELLO")}).encode()
    lines = [
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"custom_id": 3}',
        b'{"custom_id": "mine"}',
        b"[" * 100_000,
        b"",
        good[:-9],
    ]
    (results / "a.jsonl").write_bytes(b"\n".join(lines))
    (results / "b.jsonl").write_bytes(good)
    (results / "notes.txt").write_text("no results")
    with ResponseCache(tmp_path / "cache") as replies:
        read = start_round(tmp_path / "batches", replies)
    assert (read.num_files, read.num_answers, read.num_failed, read.num_foreign) == (2, 1, 0, 8)


def test_a_result_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "results" / "folder.jsonl").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"folder\.jsonl: the results cannot be read"):
        start_round(tmp_path, ResponseCache(tmp_path / "cache"))


def test_batch_files_need_a_run() -> None:
    with ChatClient(LLM) as client, pytest.raises(ConfigError, match="works inside a run only"):
        client.submit(request("hello")).result(20)
