"""A real S3 server on this machine (moto), and a line to it that may break."""

import contextlib
import http.client
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import pytest

BUCKET = "bucket"
SIGNED = "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request"
"""As much of a signature as tells moto which service is asked."""
Fault = Literal["", "slow_down", "broken", "denied", "reset", "lost_reply"]
"""``reset`` cuts the line before the request gets through, ``lost_reply`` after it."""

_ANSWERS = {"slow_down": (503, "SlowDown"), "broken": (500, "InternalError"), "denied": (403, "AccessDenied")}


def settings(address: str) -> dict[str, str]:
    """Environment in which s3fs asks this server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "word",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }


@contextlib.contextmanager
def serve_s3() -> Iterator[str]:
    """Serve S3 with one bucket; gives the address."""
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        connection = http.client.HTTPConnection(host, port)
        connection.request("PUT", f"/{BUCKET}", headers={"Authorization": SIGNED})
        assert connection.getresponse().status == 200
        connection.close()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


class Line(ThreadingHTTPServer):
    """Passes requests on to a server, unless `fault` says what happens to them instead."""

    daemon_threads = True

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.server = server.removeprefix("http://")
        self.fault: Callable[[str, str], Fault] = lambda method, path: ""
        """Called with method and path of every request."""
        self.asked: list[tuple[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Line

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._relay()

    def do_HEAD(self) -> None:
        self._relay()

    def do_PUT(self) -> None:
        self._relay()

    def do_POST(self) -> None:
        self._relay()

    def do_DELETE(self) -> None:
        self._relay()

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path))
        fault = self.server.fault(self.command, self.path)
        if fault in _ANSWERS:
            status, code = _ANSWERS[fault]
            content = f"<Error><Code>{code}</Code><Message>scripted</Message></Error>".encode()
            self._send(status, content, {"Content-Type": "application/xml"})
        elif fault == "reset":
            self._cut()
        else:
            connection = http.client.HTTPConnection(self.server.server, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if fault == "lost_reply":
                self._cut()
            else:
                dropped = ("content-length", "connection", "transfer-encoding", "date", "server")
                headers = {name: value for name, value in answer.getheaders() if name.lower() not in dropped}
                size = answer.getheader("Content-Length") or str(len(content))
                self._send(answer.status, content, headers, size)

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, status: int, content: bytes, headers: dict[str, str], size: str = "") -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": size or str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextlib.contextmanager
def line_to(server: str) -> Iterator[Line]:
    """A line to a server."""
    with Line(server) as line:
        thread = threading.Thread(target=line.serve_forever, daemon=True)
        thread.start()
        try:
            yield line
        finally:
            line.shutdown()
            thread.join()
