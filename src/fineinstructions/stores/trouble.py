"""What the exceptions of stores mean: try again, ask the user, or give up; each as one line without a key."""

import errno
import os
from collections.abc import Iterator

from fineinstructions.backends.completion import safe_line
from fineinstructions.errors import BackendError, ConfigError, FineInstructionsError

_EXTRAS = {"s3": "s3", "gs": "gs", "hf": "hf"}
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or run 'gcloud auth application-default login'",
    "hf": "HF_TOKEN, or run 'hf auth login'",
}
_SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_NO_KEY = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
    *("DefaultCredentialsError", "RefreshError", "LocalTokenNotFoundError"),
}
_NOT_ALLOWED = {"AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_BAD_NAME = {"ParamValidationError", "InvalidRegionError", "HFValidationError"}
_PASSING_ERRNO = {errno.EBUSY, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED, errno.EPIPE}
_PASSING = {
    *("ClientConnectionError", "ServerDisconnectedError", "ClientPayloadError", "ConnectionClosedError"),
    *("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "IncompleteReadError", "ProxyError"),
    *("ConnectionError", "Timeout", "ReadTimeout", "ChunkedEncodingError", "ChecksumError", "HTTPClientError"),
    *("ResponseStreamingError", "ConnectError", "RemoteProtocolError", "ReadError", "TransportError"),
}
"""Names of exceptions that libraries raise for a line that broke or a server that is not up."""


class Conflict(Exception):  # noqa: N818 - a condition did not hold, which is no error of the store
    """A write was bound to a condition that did not hold; nothing was written."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it came from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def status_of(error: BaseException) -> tuple[int, str]:
    """HTTP status and the store's own code behind an exception; 0 and an empty text where there is none."""
    for link in chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            return int(status), str(response.get("Error", {}).get("Code", ""))
        status = getattr(response, "status_code", None) or getattr(link, "code", None) or getattr(link, "status", None)
        if isinstance(status, int | str) and str(status).isdecimal():
            return int(status), ""
    return 0, ""


def is_passing(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, FineInstructionsError):
        return False
    status, code = status_of(error)
    if status:
        return status in (408, 409, 425, 429) or status >= 500 or code in ("SlowDown", "RequestTimeout")
    for link in chain(error):
        names = {kind.__name__ for kind in type(link).__mro__}
        if names & _PASSING or isinstance(link, TimeoutError | ConnectionError):
            return True
        if isinstance(link, OSError) and link.errno in _PASSING_ERRNO:
            return True
    return False


def told(url: str, error: Exception, doing: str) -> FineInstructionsError:
    """What an exception of a store comes to.

    Args:
        url: Place in the store.
        error: What its library raised.
        doing: What was tried: ``read``, ``write``, ``list`` or ``delete``.
    """
    if isinstance(error, FineInstructionsError):
        return error
    scheme = {"s3a": "s3", "gcs": "gs"}.get(url.partition("://")[0], url.partition("://")[0])
    status, code = status_of(error)
    words = str(error)
    for name in _SECRETS:
        words = safe_line(words, os.environ.get(name, "").strip())
    line = safe_line(f"{type(error).__name__}: {words}")
    names = {kind.__name__ for link in chain(error) for kind in type(link).__mro__}
    if names & _NO_KEY or status == 401:
        return ConfigError(f"{url}: no valid credentials ({line}); set {_KEYS.get(scheme, 'them')}")
    if isinstance(error, PermissionError) or status == 403 or code in _NOT_ALLOWED or "Forbidden" in line:
        return ConfigError(f"{url}: may not {doing} there ({line}); ask for the right to, or use another key or --out")
    if isinstance(error, FileNotFoundError) or status == 404:
        return ConfigError(f"{url}: no such bucket or repository ({line}); make it, or check the name")
    if (status in range(400, 500) and not is_passing(error)) or names & _BAD_NAME or isinstance(error, ValueError):
        return ConfigError(f"{url}: cannot {doing} there ({line}); check the name and the settings of the store")
    return BackendError(
        f"{url}: cannot {doing} there ({line})",
        retryable=True,
        hint="check the network and the store's state, then run the same command again",
    )


def no_filesystem(url: str, scheme: str) -> ConfigError:
    """That the filesystem of a URL is not installed."""
    return ConfigError(
        f"{url}: the filesystem {scheme}:// is not installed; pip install 'fineinstructions[{_EXTRAS[scheme]}]'"
    )
