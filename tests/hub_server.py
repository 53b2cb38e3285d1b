"""A hub on this machine: as much of its interface as asking for a commit and a licence takes."""

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
