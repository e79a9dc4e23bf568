"""Makes the WSGI environ of contract section 11 from a request that the front has received.

Owns the variables of the environ. ``flask_context`` calls the application. This module imports
werkzeug, so it must be imported only where Flask is imported. Runs in workers, once for every
request for which run() is called through Flask.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from werkzeug.wsgi import FileWrapper

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
# Headers and values with which a proxy on this machine reports that the client used https.
_HTTPS = (("HTTP_X_FORWARDED_PROTO", "https"), ("HTTP_X_FORWARDED_SSL", "on"), ("HTTP_X_FORWARDED_PROTOCOL", "ssl"))


class Request(NamedTuple):
    """One HTTP request, as the front has received it.

    ``target``: undecoded, as on the request line. ``http_minor``: 1 for HTTP/1.1. ``headers``:
    names in any case, with values, in the order sent. ``body``: the whole body without chunked
    coding. ``sender``: the connection's other end, such as "127.0.0.1:4711" or "[::1]:4711"; the
    client's address, if a trusted proxy names it (--trusted_proxies), else empty; whether the client
    used https, None if no trusted proxy says that. ``request_id``: the ``x-request-id`` of the reply.
    ``asked``: what the reply to a request of the Open Inference Protocol must have, None for others.
    Each character of a text is one byte (latin-1).
    """

    method: str
    target: str
    http_minor: int
    headers: list[tuple[str, str]]
    body: bytes
    sender: tuple[str, str, bool | None]
    request_id: str
    asked: Any = None


def client_ids(environ: dict[str, Any], request_id: str) -> tuple[str, str]:
    """``x-ms-client-request-id`` and ``x-ms-request-id`` of the reply (contract section 9)."""
    legacy, client = environ.get("HTTP_X_MS_REQUEST_ID", ""), environ.get("HTTP_X_MS_CLIENT_REQUEST_ID", "")
    return client or legacy, legacy or client or request_id


def build_environ(request: Request, server: dict[str, Any]) -> dict[str, Any]:
    """Make the WSGI environ of contract section 11. ``server`` has the variables that are the same
    for all requests."""
    path, query = split_target(request.target)
    peer, client, is_https = request.sender
    address, _, port = (client or peer).rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": request.target,
        "SERVER_PROTOCOL": f"HTTP/1.{request.http_minor}",
        "REMOTE_ADDR": address.strip("[]"),
        "REMOTE_PORT": port,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.run_once": False,
        **server,
        **_header_variables(request.headers),
    }
    is_local = peer.rpartition(":")[0].strip("[]") in _LOOPBACK
    says_https = is_local and any(environ.get(name) == value for name, value in _HTTPS)
    if is_https or (is_https is None and says_https):
        environ["wsgi.url_scheme"] = "https"
    return environ


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request target, which may be a whole URL. A fragment is cut off."""
    if not target.startswith("/"):
        authority = target.partition("://")[2]
        target = authority[authority.find("/") :] if "/" in authority else "/"
    path, _, query = target.partition("#")[0].partition("?")
    return path, query


def _header_variables(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers as environ variables. Repeated headers are joined. A name with an underscore is
    left out, because its variable would look like that of a name with a hyphen."""
    variables: dict[str, str] = {}
    for name, value in headers:
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        variables[key] = f"{variables[key]},{value}" if key in variables else value
    return variables
