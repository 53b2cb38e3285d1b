"""How requests travel to a server: over `aiohttp`, one kept connection for each request under way.

In: a path of the API and a body. Out: status, headers and text of the reply, whatever the status, or `WireError`.

The decision a reader would question: not the client of `openai`, whose HTTP library costs more processor time per
request than all the rest of a stage, so that a window of 64 requests was never full (ADR 11). What that client would
do besides, retries and typed replies, is done here anyway.
"""

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

CHAT, EMBEDDINGS, MODELS = "/chat/completions", "/embeddings", "/models"
MAX_BODY_BYTES = 256 << 20


class WireError(Exception):
    """No whole reply came.

    Args:
        message: What happened.
        is_unreachable: Whether nobody answers at the address.
    """

    def __init__(self, message: str, *, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.is_unreachable = is_unreachable


@dataclass(frozen=True, slots=True)
class WireReply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    text: str


class Wire:
    """The way to one server; proxies are taken from the environment, redirects are not followed.

    Args:
        address: Address up to and including ``/v1``.
        key: Key to send.
    """

    def __init__(self, address: str, key: str) -> None:
        self._address, self._key = address, key
        self._proxy = proxy_for(address)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, path: str, body: Mapping[str, Any]) -> WireReply:
        """Send one request and wait for its whole reply, however long that takes.

        Args:
            path: `CHAT`, `EMBEDDINGS` or `MODELS`.
            body: The request; nothing is sent where it is empty.

        Raises:
            WireError: If no whole reply came.
        """
        import aiohttp

        kind = {"Content-Type": "application/json"} if body else {}
        try:
            data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() if body else None
            async with self._open().request(
                "POST" if body else "GET",
                self._address + path,
                data=data,
                headers=kind,
                proxy=self._proxy,
                allow_redirects=False,
            ) as response:
                raw = await _whole_body(response)
                headers = {name.lower(): value for name, value in response.headers.items()}
                return WireReply(response.status, headers, raw.decode("utf-8", "replace"))
        except aiohttp.ClientConnectorError as error:
            raise WireError(error.strerror or str(error), is_unreachable=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise WireError(_line(error)) from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                headers={"Authorization": f"Bearer {self._key}", "Accept": "application/json"},
                connector=aiohttp.TCPConnector(limit=0),  # the gate counts
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the endpoint keeps the time
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # it would read a .netrc for every request, and refuse the key beside one
            )
        return self._session


def proxy_for(address: str) -> str | None:
    """The proxy that the environment names for an address."""
    parts = urllib.parse.urlsplit(address)
    proxies = urllib.request.getproxies_environment()
    found = proxies.get(parts.scheme) or proxies.get("all")
    return found if found and not urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]) else None


async def _whole_body(response: "aiohttp.ClientResponse") -> bytes:
    """A reply's body, decompressed.

    Raises:
        ValueError: If it is longer than any reply; a small compressed one may unfold to that.
    """
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > MAX_BODY_BYTES:
            response.close()
            raise ValueError(f"a body of more than {MAX_BODY_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _line(error: Exception) -> str:
    """What went wrong, in one line, of the paragraphs that a parser gives."""
    return " ".join(str(error).split())[:300] or type(error).__name__
