"""Answers the requests of a batch file by really sending their bodies to a server, as a batch service would."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from fineinstructions.backends.scripted_server import ScriptedServer


def answer_requests(path: Path, results: Path, server: ScriptedServer) -> list[Path]:
    """An output file and an error file, each row under the id of its request."""
    rows = [answer(json.loads(line), server) for line in path.read_text(encoding="utf-8").splitlines()]
    results.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, wanted in (("output", True), ("error", False)):
        of_kind = [row for row in rows if (row["error"] is None) == wanted]
        if of_kind:
            written.append(results / f"batch_{len(list(results.iterdir())):04d}_{kind}.jsonl")
            written[-1].write_text("".join(json.dumps(row) + "\n" for row in of_kind), encoding="utf-8")
    return written


def answer(row: dict[str, Any], server: ScriptedServer) -> dict[str, Any]:
    """One row of a result file."""
    assert (row["method"], row["url"]) == ("POST", "/v1/chat/completions")
    status, body = send(row["body"], server)
    failed = None if status == 200 else {"code": str(status), "message": body["error"]["message"]}
    response = {"status_code": status, "request_id": row["custom_id"][:8], "body": body}
    return {
        "id": f"batch_req_{row['custom_id'][:8]}",
        "custom_id": row["custom_id"],
        "response": response,
        "error": failed,
    }


def send(body: dict[str, Any], server: ScriptedServer) -> tuple[int, dict[str, Any]]:
    """Status and body of the server's reply."""
    key = os.environ.get("OPENAI_API_KEY", "none")
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    asked = urllib.request.Request(f"{server.base_url}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
