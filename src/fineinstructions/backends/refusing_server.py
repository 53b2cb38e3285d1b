"""Answers at the address of a server that is gone for good, so that nobody waits for it any longer.

In: an address and why the server is gone. Out: that reason, with HTTP 410, to every request.
"""

import http.server
import json
import socket
import threading
from types import TracebackType
from typing import Any, Self


class RefusingServer:
    """A server that refuses every request; a context, from a thread of its own.

    Args:
        host: Address to listen on.
        port: Port.
        reason: What every request is told.

    Raises:
        OSError: If it cannot listen there.
    """

    def __init__(self, host: str, port: int, reason: str) -> None:
        body = json.dumps({"error": {"message": reason, "code": "gone"}}).encode()

        class Refusal(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                # Unread, the client would be cut off while sending.
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(http.HTTPStatus.GONE)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815 -- the name that the library calls

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        self._server = Server((host, port), Refusal)
        self._thread = threading.Thread(target=self._server.serve_forever, name=f"refusing-{port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
