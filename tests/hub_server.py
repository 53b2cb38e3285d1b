"""A hub on this machine: as much of its interface as asking for a commit and a licence takes, and uploading files."""

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


class HubServer(ThreadingHTTPServer):
    """Knows some artefacts, by ``models/owner/name`` or ``datasets/owner/name``, each with its card."""

    def __init__(self, cards: dict[str, dict[str, Any] | None], gated: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.cards, self.gated = cards, gated
        self.asked: list[str] = []
        self.files: dict[str, bytes] = {}
        """Uploaded files, by ``owner/name/path``."""
        self.commits: list[list[str]] = []
        """Names of the files of every commit."""
        self.refusals: list[tuple[int, dict[str, str]]] = []
        """Status and headers of the next answers to commits, instead of taking them."""
        self.private: dict[str, bool] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/api/")
        self.server.asked.append(path)
        name, _, revision = path.partition("/revision/")
        if name in self.server.gated:
            self._send(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        elif name not in self.server.cards:
            self._send(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("", COMMIT):
            self._send(404, {"error": "Invalid rev"}, {"X-Error-Code": "RevisionNotFound"})
        else:
            card = self.server.cards[name]
            facts = {"id": name.partition("/")[2], "sha": COMMIT, "tags": [], "siblings": []}
            self._send(200, facts | ({"cardData": card} if card is not None else {}))

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path).removeprefix("/api/")
        body = self._body()
        if path == "repos/create":
            made = json.loads(body)
            name = f"{made['organization']}/{made['name']}"
            self.server.private[name] = made["visibility"] == "private"
            self._send(200, {"url": f"{self.server.address}/datasets/{name}"})
        elif path.endswith("/preupload/main"):
            files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            self._send(200, {"files": [file | {"shouldIgnore": False} for file in files]})
        elif path == "validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif self.server.refusals:
            status, headers = self.server.refusals.pop(0)
            self._send(status, {"error": "not now"}, headers)
        else:
            name = path.removeprefix("datasets/").removesuffix("/commit/main")
            self._commit(name, [json.loads(line) for line in body.splitlines()])

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        files = [line["value"] for line in lines if line["key"] == "file"]
        self.server.files |= {f"{name}/{file['path']}": base64.b64decode(file["content"]) for file in files}
        self.server.commits.append([file["path"] for file in files])
        url = f"{self.server.address}/datasets/{name}/commit/{COMMIT}"
        self._send(200, {"success": True, "commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def serve_hub(cards: dict[str, dict[str, Any] | None], gated: tuple[str, ...] = ()) -> Iterator[HubServer]:
    with HubServer(cards, gated) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
