"""A key is in no file of a run and in no line of its output, however the run ends."""

import subprocess
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from chat_requests import error_of, request, settings, upper
from pipeline_inputs import command, in_process, take_documents

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.completion import safe_line
from fineinstructions.backends.llm import ChatClient
from fineinstructions.backends.llm_config import key_of
from fineinstructions.backends.scripted_brain import echo
from fineinstructions.backends.scripted_server import Fault, Reply, ScriptedServer, StatusError
from fineinstructions.errors import ConfigError

KEY = "sk-'quoted'-and-\\slashed-0123456789"
FRAGMENT = "slashed-0123456789"
"""What is looked for: it stays the same however the key is quoted."""


def write_recipe(folder: Path, bank: Path, server: ScriptedServer, **llm: Any) -> Path:
    recipe = {
        "templates": {"bank": str(bank)},
        "documents": {"path": str(take_documents(folder / "d.parquet", 6, every=60))},
        "llm": {"model": "m", "base_url": server.base_url, "backoff_seconds": 0.01, "max_retries": 1, **llm},
        "instantiate": {"model": "openai"},
        "judge": {"model": "openai"},
        "retrieve": {"min_cosine": 0.0},
        "engine": {"workers": 0, "unit_rows": 3},
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder / "r.yaml"


def everything(folder: Path) -> str:
    """All bytes below a folder as text, and all that its tables hold."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.append(path.read_bytes().decode("utf-8", "replace"))
            if path.suffix == ".parquet":
                found.append(str(pq.read_table(path).to_pylist()))
    return "\n".join(found)


def refusing(status: int) -> Any:
    def brain(body: Mapping[str, Any]) -> str:
        raise StatusError(status, f"the request with Authorization: Bearer {KEY} failed, {{'key': {KEY!r}}}")

    return brain


def talkative(body: Mapping[str, Any]) -> str | Reply:
    """Now and then a reply without text, a refusal and a cut one, in the course of a good run."""
    reply = echo(body)
    odd = {0: Reply(None, refusal="no"), 1: Reply(reply, finish_reason="length"), 2: Reply("{")}
    return odd.get(len(str(body["messages"])) % 17, reply)


ENDS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "well": ({"brain": talkative}, {}, 0),
    "every request is turned down": ({"brain": refusing(422)}, {"max_failures_in_a_row": 1000}, 1),
    "the server breaks": ({"brain": refusing(500)}, {"max_failures_in_a_row": 3}, 1),
    "a wrong key": ({"api_key": "another"}, {}, 1),
    "no such model": ({"brain": refusing(404)}, {}, 1),
    "nobody answers": ({"fault": "hang"}, {"timeout_seconds": 0.2, "max_retries": 0, "max_failures_in_a_row": 3}, 1),
    "the line breaks": ({"fault": "reset"}, {"max_retries": 0, "max_failures_in_a_row": 3}, 1),
    "no JSON": ({"fault": "bad_json"}, {"max_retries": 0, "max_failures_in_a_row": 3}, 1),
}
SLOW = ("nobody answers", "no such model", "the line breaks", "no JSON", "the server breaks")


@pytest.mark.parametrize("end", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in ENDS])
def test_the_key_is_nowhere(tmp_path: Path, bank: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    server_settings, llm, code = ENDS[end]
    fault: Fault | None = server_settings.get("fault")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = ScriptedServer(
        server_settings.get("brain", echo),
        api_key=server_settings.get("api_key", KEY),
        faults=(lambda body, times: fault) if fault else None,
    )
    with server:
        recipe = write_recipe(tmp_path, bank, server, **llm)
        words = command("run", recipe, "--out", tmp_path / "run", "--workers", "1" if end == "well" else "0")
        done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == code, done.stderr
        assert server.requests["/v1/chat/completions"] > 0
        shown = done.stdout + done.stderr
        for verb in ("status", "verify", "inspect", "doctor", *(("audit", "report") if end == "well" else ())):
            target = recipe if verb == "doctor" else tmp_path / "run"
            ended, *said = in_process(verb, target)
            shown += "".join(said)
            assert ended == 0 or verb == "doctor" or end != "well", said
    assert "Traceback" not in shown
    assert FRAGMENT not in shown
    assert FRAGMENT not in everything(tmp_path)


def test_a_traceback_of_an_internal_error_does_not_show_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even one that shows the variables of all functions on the way."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def stumble(text: str) -> str:
        raise RuntimeError(f"internal trouble with {text}")

    with (
        ScriptedServer(upper, api_key=KEY) as server,
        ChatClient(settings(server), ResponseCache(tmp_path)) as client,
    ):
        error = client.ask(request("hello"), stumble).exception(20)
    assert isinstance(error, RuntimeError)
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "internal trouble with HELLO" in shown
    assert FRAGMENT not in shown


def test_a_key_with_a_line_end_is_taken_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with ScriptedServer(upper, api_key=KEY) as server:
        for around in ("\r", "\n", " \r\n", "\t"):
            monkeypatch.setenv("OPENAI_API_KEY", f"{around}{KEY}{around}")
            with ChatClient(settings(server), ResponseCache(tmp_path)) as client:
                assert client.submit(request("hello")).result(20).text == "HELLO"
    assert FRAGMENT not in everything(tmp_path)


@pytest.mark.parametrize("key", ["sk-hushed\nX-Other: 1", "sk-hushed …", "sk- hushed", "sk-hushed\x7f"])
def test_a_key_that_cannot_be_sent_is_told_without_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with ScriptedServer(upper) as server:
        for refused in (lambda: key_of("OPENAI_API_KEY"), lambda: ChatClient(settings(server))):
            with pytest.raises(ConfigError, match="OPENAI_API_KEY: holds blanks") as caught:
                refused()
            assert "hushed" not in "".join(traceback.format_exception(caught.value))
        assert not server.requests


def test_no_form_of_a_key_gets_into_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = safe_line(f"plain {KEY}, repr {KEY!r}, bytes {KEY.encode()!r}", KEY)
    assert FRAGMENT not in shown
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ScriptedServer(refusing(422), api_key=KEY) as server, ChatClient(settings(server)) as client:
        error = error_of(client.submit(request("hello")))
    assert FRAGMENT not in "".join(traceback.format_exception(error)) + repr(vars(error))
