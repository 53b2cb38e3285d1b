"""Who may ask the viewer, and what a page may do: checked before any page is made.

In: requests. Out: the same requests, or a refusal of one line. Three dangers: a web page elsewhere that reaches this
server under another name (the Host header is checked), one that posts to it (the Origin header is), and a text in the
run that is a script (the content policy allows none but ours).
"""

import hmac
import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}
COOKIE = "fineinstructions_view"
_LOOPBACK_NAMES = ("localhost", "localhost.localdomain")


@dataclass(frozen=True)
class Access:
    """Under which names the server answers, and to whom."""

    host: str
    token: str = ""
    """What everybody must bring; empty on a loopback address."""

    def knows(self, header: str) -> bool:
        """Whether a Host header names this server: an address, its own name, or localhost.

        A name that somebody has pointed at this machine is not among them.

        Example:
            >>> here = Access("127.0.0.1")
            >>> here.knows("localhost:8000"), here.knows("[::1]:8000"), here.knows("evil.example:8000")
            (True, True, False)
        """
        name = re.sub(r":\d+$", "", header.strip().lower()).strip("[]")
        if name in (*_LOOPBACK_NAMES, self.host.lower()):
            return True
        return is_loopback(name) if not self.token else _is_address(name)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    return host.lower() in _LOOPBACK_NAMES or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Wraps the application.

    Args:
        app: The application.
        access: Who may ask.
    """

    def __init__(self, app: Asgi, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                kept = [(n, v) for n, v in message["headers"] if n.decode("latin-1").lower() not in HEADERS]
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*kept, *added]}
            await send(message)

        host = given.get("host", "")
        if not self._access.knows(host):
            await _answer(guarded, 421, "unknown host name; open the address that the program printed")
            return
        origin = given.get("origin", "")
        if scope["method"] not in ("GET", "HEAD") and origin.lower() != f"http://{host}".lower():
            await _answer(guarded, 403, "asked by another page")
            return
        if self._access.token and not self._is_let_in(given):
            await self._ask_for_token(scope, guarded)
            return
        await self._app(scope, receive, guarded)

    def _is_let_in(self, given: dict[str, str]) -> bool:
        bearer = given.get("authorization", "").removeprefix("Bearer ")
        cookies = dict(part.strip().partition("=")[::2] for part in given.get("cookie", "").split(";"))
        return self._is_token(bearer) or self._is_token(cookies.get(COOKIE, ""))

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._access.token.encode())

    async def _ask_for_token(self, scope: Scope, send: Send) -> None:
        """Take a token from the address into a cookie, so that it does not stay in the address; refuse without one."""
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        token = dict(query).get("token", "")
        if not self._is_token(token):
            await _answer(send, 401, "this viewer wants a token; open the address that the program printed")
            return
        left = urlencode([(name, value) for name, value in query if name != "token"])
        path = "/" + quote(scope["path"].lstrip("/"))
        cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
        headers = {"location": path + (f"?{left}" if left else ""), "set-cookie": cookie}
        await _answer(send, 303, "welcome", headers)


async def _answer(send: Send, status: int, line: str, headers: dict[str, str] | None = None) -> None:
    told = {"content-type": "text/plain; charset=utf-8", **(headers or {})}
    pairs = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": (line + "\n").encode()})
