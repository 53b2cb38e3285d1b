"""Serving the viewer: an address that is free, who may reach it, and the line that says where it is.

In: a host, a port, a token. Out: a server that runs until Ctrl-C.
"""

import re
import socket
from typing import Any

from fineinstructions.errors import ConfigError
from fineinstructions.review.viewer.guard import Access, is_loopback

TOKEN_VARIABLE = "FINEINSTRUCTIONS_VIEW_TOKEN"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,200}")


def checked_access(host: str, token: str) -> Access:
    """Who may reach a viewer.

    Raises:
        ConfigError: If others than this machine could, without a token that is hard to guess.
    """
    if token and not _TOKEN.fullmatch(token):
        raise ConfigError(
            f"--token: 16 to 200 letters, digits, - and _; take one from 'openssl rand -hex 16', or {TOKEN_VARIABLE}"
        )
    if not token and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: others could read this run there; give --token or {TOKEN_VARIABLE}, or leave --host out"
        )
    return Access(host, token)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: If the port is taken, or the host is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(64)
    except (socket.gaierror, UnicodeError):
        raise ConfigError(f"--host {host}: no such name; choose another") from None
    except OSError as error:
        raise ConfigError(f"--port {port}: cannot listen on {host} ({error.strerror}); choose another") from None
    return listening


def address_of(listening: socket.socket, access: Access) -> str:
    """The address that a person opens."""
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={access.token}" if access.token else "")


def serve(app: Any, listening: socket.socket) -> None:
    """Answer requests until Ctrl-C.

    Args:
        app: The application.
        listening: Where; requests that have come already are answered too.
    """
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listening])
