"""A bucket of Google Cloud Storage on this machine: as much of its JSON interface as keeping a run there takes."""

import contextlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

DATE = "2026-01-01T00:00:00.000Z"
PAGE = 3
"""Objects on a page of a listing, so that there are several."""


class GsServer(ThreadingHTTPServer):
    """Holds the objects of the bucket ``bucket``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.objects: dict[str, tuple[bytes, int]] = {}
        """Content and generation by name."""
        self.pieces: dict[str, bytes] = {}
        self.generation = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GsServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def _answer(self) -> None:
        asked = urlsplit(self.path)
        options = {name: values[0] for name, values in parse_qs(asked.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = re.fullmatch(
            r"(/upload|/download)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?(?:/rewriteTo/b/bucket/o/(.+))?", asked.path
        )
        if found is None or found[2] != "bucket":
            self._send(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
            return
        name, target = unquote(found[3] or ""), unquote(found[4] or "")
        with self.server.lock:
            if options.get("uploadType") == "resumable":
                self._take_piece(body, options)
            elif found[1] == "/upload":
                self._write(options["name"], body, options.get("ifGenerationMatch"))
            elif not name:
                self._list(options)
            elif name not in self.server.objects:
                self._send(404, {"error": {"code": 404, "message": "No such object"}})
            elif self.command == "DELETE":
                del self.server.objects[name]
                self._send(204, None)
            elif target:
                self._write(target, self.server.objects[name][0], None, copied=True)
            elif options.get("alt") == "media" or found[1] == "/download":
                self._send_content(*self.server.objects[name])
            else:
                self._send(200, self._facts(name))

    def _facts(self, name: str) -> dict[str, Any]:
        content, generation = self.server.objects[name]
        return {"kind": "storage#object", "bucket": "bucket", "name": name, "size": str(len(content)),
                "generation": str(generation), "updated": DATE, "timeCreated": DATE}  # fmt: skip

    def _write(self, name: str, content: bytes, condition: str | None, *, copied: bool = False) -> None:
        known = self.server.objects.get(name)
        if condition is not None and int(condition) != (known[1] if known else 0):
            self._send(412, {"error": {"code": 412, "message": "At least one of the pre-conditions did not hold."}})
            return
        self.server.generation += 1
        self.server.objects[name] = (content, self.server.generation)
        self._send(200, {"done": True, "resource": self._facts(name)} if copied else self._facts(name))

    def _take_piece(self, body: bytes, options: dict[str, str]) -> None:
        """Begin an upload in pieces, or take the next of them; the condition is looked at when all are there."""
        place = self.headers.get("Content-Range")
        if place is None:
            self.server.pieces[options["name"]] = b""
            self._send(200, {}, {"Location": f"{self.server.address}{self.path}"})
            return
        self.server.pieces[options["name"]] += body
        whole = self.server.pieces[options["name"]]
        if len(whole) < int(place.rpartition("/")[2]):
            self._send(308, b"", {"Range": f"bytes=0-{len(whole) - 1}"})
        else:
            self._write(options["name"], whole, options.get("ifGenerationMatch"))

    def _list(self, options: dict[str, str]) -> None:
        names = sorted(n for n in self.server.objects if n.startswith(options.get("prefix", "")))
        start = int(options.get("pageToken", 0))
        page = {"kind": "storage#objects", "items": [self._facts(name) for name in names[start : start + PAGE]]}
        self._send(200, page | ({"nextPageToken": str(start + PAGE)} if start + PAGE < len(names) else {}))

    def _send_content(self, content: bytes, generation: int) -> None:
        status = 200
        if wanted := self.headers.get("Range"):
            low, _, high = wanted.removeprefix("bytes=").partition("-")
            status, content = 206, content[int(low) : int(high) + 1 if high else None]
        self._send(status, content, {"X-Goog-Generation": str(generation)})

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header(
            "Content-Type", "application/octet-stream" if isinstance(answer, bytes) else "application/json"
        )
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def serve_gs(contents: Mapping[str, bytes] | None = None) -> Iterator[GsServer]:
    """The bucket, with some objects in it, and where it listens."""
    with GsServer() as server:
        server.objects = {name: (content, 1) for name, content in (contents or {}).items()}
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
