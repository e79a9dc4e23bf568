"""From a request as the front received it to the WSGI environ of contract section 11.

Owns which variables there are and what they say. Does not call the application (``flask_context``). Imports werkzeug,
so it is imported only where Flask is. Runs in workers, once for every request that goes to the script by way of Flask.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from werkzeug.wsgi import FileWrapper

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
# Header and value by which a proxy on this machine says that the client used https.
_HTTPS = (("HTTP_X_FORWARDED_PROTO", "https"), ("HTTP_X_FORWARDED_SSL", "on"), ("HTTP_X_FORWARDED_PROTOCOL", "ssl"))


class Request(NamedTuple):
    """One HTTP request as the front received it.

    ``target``: as on the request line, undecoded. ``http_minor``: 1 for HTTP/1.1. ``headers``: names in any case and
    values, in the order sent. ``body``: whole and decoded from chunks. ``peer``: such as "127.0.0.1:4711" or
    "[::1]:4711". ``request_id``: what goes out as ``x-request-id``. Each character of a text is one byte (latin-1).
    """

    method: str
    target: str
    http_minor: int
    headers: list[tuple[str, str]]
    body: bytes
    peer: str
    request_id: str


def client_ids(environ: dict[str, Any], request_id: str) -> tuple[str, str]:
    """``x-ms-client-request-id`` and ``x-ms-request-id`` of the reply (contract section 9)."""
    legacy, client = environ.get("HTTP_X_MS_REQUEST_ID", ""), environ.get("HTTP_X_MS_CLIENT_REQUEST_ID", "")
    return client or legacy, legacy or client or request_id


def build_environ(request: Request, server: dict[str, Any]) -> dict[str, Any]:
    """The WSGI environ of contract section 11; ``server`` holds what is the same for every request."""
    path, query = split_target(request.target)
    address, _, port = request.peer.rpartition(":")
    address = address.strip("[]")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": request.target,
        "SERVER_PROTOCOL": f"HTTP/1.{request.http_minor}",
        "REMOTE_ADDR": address,
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
    if address in _LOOPBACK and any(environ.get(name) == value for name, value in _HTTPS):
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
    """Headers as environ keys. Repeated ones are joined; names with an underscore could pass for others, so they go."""
    variables: dict[str, str] = {}
    for name, value in headers:
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        variables[key] = f"{variables[key]},{value}" if key in variables else value
    return variables
