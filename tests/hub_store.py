"""A data set on a hub on this machine that takes commits: as much of its interface as keeping a run there takes."""

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NAME = "jo/runs"


class HubStore(ThreadingHTTPServer):
    """Holds the data set ``jo/runs`` with all of its commits."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.commits: list[tuple[str, dict[str, bytes]]] = [(hashlib.sha1(b"0").hexdigest(), {})]
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def files_at(self, revision: str) -> dict[str, bytes] | None:
        return self.files if revision == "main" else dict(self.commits).get(revision)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubStore

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        asked = urlsplit(self.path)
        path = unquote(asked.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        with self.server.lock:
            if path.startswith(f"/api/datasets/{NAME}"):
                self._api(path.removeprefix(f"/api/datasets/{NAME}").strip("/"), body)
            elif path.startswith(f"/datasets/{NAME}/resolve/"):
                revision, _, name = path.removeprefix(f"/datasets/{NAME}/resolve/").partition("/")
                self._send_file(revision, name)
            else:
                self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _api(self, asked: str, body: bytes) -> None:
        verb, _, rest = asked.partition("/")
        if verb in ("", "revision"):
            self._send(200, {"id": NAME, "sha": self.server.commits[-1][0], "siblings": [], "tags": []})
        elif verb == "preupload":
            files = json.loads(body)["files"]
            answers = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for f in files]
            self._send(200, {"files": answers})
        elif verb == "paths-info":
            wanted = json.loads(body)["paths"] if body[:1] == b"{" else parse_qs(body.decode()).get("paths", [])
            files = self.server.files_at(unquote(rest)) or {}
            self._send(200, [_facts(name, files[name]) for name in wanted if name in files])
        elif verb == "tree":
            revision, _, folder = rest.partition("/")
            files = self.server.files_at(revision) or {}
            found = [_facts(n, c) for n, c in sorted(files.items()) if not folder or n.startswith(f"{folder}/")]
            if folder and not found:
                self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            else:
                self._send(200, found)
        elif verb == "commit":
            self._commit([json.loads(line) for line in body.splitlines() if line])

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        head, files = self.server.commits[-1]
        if lines[0]["value"].get("parentCommit", head) != head:
            self._send(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        files = dict(files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise AssertionError(line["key"])
        oid = hashlib.sha1(f"{head}{len(self.server.commits)}".encode()).hexdigest()
        self.server.commits.append((oid, files))
        self._send(
            200, {"success": True, "commitOid": oid, "commitUrl": f"{self.server.address}/datasets/{NAME}/commit/{oid}"}
        )

    def _send_file(self, revision: str, name: str) -> None:
        content = (self.server.files_at(revision) or {}).get(name)
        if content is None:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{_oid(content)}"', "X-Repo-Commit": self.server.commits[-1][0], "Accept-Ranges": "bytes"}
        status = 200
        if wanted := self.headers.get("Range"):
            low, _, high = wanted.removeprefix("bytes=").partition("-")
            last = min(int(high or len(content)), len(content) - 1)
            status, headers["Content-Range"] = 206, f"bytes {low}-{last}/{len(content)}"
            content = content[int(low) : last + 1]
        self._send(status, content, headers)

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(answer, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _facts(name: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}


@contextlib.contextmanager
def serve_hub_store() -> Iterator[HubStore]:
    """The hub, and where it listens."""
    with HubStore() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
