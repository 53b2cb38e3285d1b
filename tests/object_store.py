"""A hub of data sets and a bucket on this machine: as much of their interfaces as reading one folder takes."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

DATE = "2026-01-01T00:00:00.000Z"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Store(ThreadingHTTPServer):
    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files = files


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Store

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        asked = urlsplit(self.path)
        path = unquote(asked.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/api/datasets/jo/cats" or path.startswith("/api/datasets/jo/cats/revision/"):
            self._send(200, json.dumps({"id": "jo/cats", "sha": COMMIT}).encode())
        elif path.startswith("/api/datasets/jo/cats/paths-info/"):
            wanted = parse_qs(body.decode()).get("paths", []) if body[:1] != b"{" else json.loads(body)["paths"]
            self._send(200, json.dumps([self._hub_entry(p) for p in wanted if p in self.server.files]).encode())
        elif path.startswith("/api/datasets/jo/cats/tree/"):
            self._send(200, json.dumps([self._hub_entry(p) for p in sorted(self.server.files)]).encode())
        elif path.rstrip("/") == "/cats" and "list-type" in asked.query:
            self._send(200, self._listing(parse_qs(asked.query).get("prefix", [""])[0]), "application/xml")
        elif (name := path.rpartition("/")[2]) in self.server.files:
            self._send_file(self.server.files[name])
        else:
            self._send(404, b"")

    def _hub_entry(self, path: str) -> dict[str, object]:
        content = self.server.files[path]
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _listing(self, prefix: str) -> bytes:
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>{DATE}</LastModified><Size>{len(content)}</Size>"
            f"<ETag>&quot;{hashlib.md5(content).hexdigest()}&quot;</ETag><StorageClass>STANDARD</StorageClass></Contents>"
            for name, content in sorted(self.server.files.items())
            if name.startswith(prefix)
        )
        head = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        )
        return f"{head}<Name>cats</Name><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()

    def _send_file(self, content: bytes) -> None:
        first, last, status = 0, len(content) - 1, 200
        if wanted := self.headers.get("Range"):
            low, _, high = wanted.removeprefix("bytes=").partition("-")
            first, last, status = int(low), min(int(high or last), last), 206
        extra = {"Content-Range": f"bytes {first}-{last}/{len(content)}"} if status == 206 else {}
        extra |= {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        extra["Last-Modified"] = "Thu, 01 Jan 2026 00:00:00 GMT"
        self._send(status, content[first : last + 1], "application/octet-stream", extra)

    def _send(
        self, status: int, content: bytes, kind: str = "application/json", extra: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def serve(files: dict[str, bytes]) -> Iterator[str]:
    """Serve files as the data set ``jo/cats`` of a hub and as the bucket ``cats``; gives the address."""
    with _Store(files) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
