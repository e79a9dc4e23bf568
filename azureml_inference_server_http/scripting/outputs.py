"""Makes status, headers and body from a result of run(), if Rust (``src/worker/convert/output.rs``)
cannot do that itself.

Owns JSON as ``json.dumps`` writes it by default, extended by the types in ``to_plain``, and Flask
responses including streams. The front adds the headers of the request: ids, times, Content-Length
and Date. This module must not import Flask, numpy or pandas: a result of their types exists only if
the script has imported them. Runs in workers. Rules: contract section 7.

One file of more than 400 lines, because it is all of contract section 7 that Rust leaves to Python.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import re
import sys
from collections.abc import AsyncIterable, Collection, Iterable, Iterator
from typing import Any, Callable, NamedTuple

from . import traps

_logger = logging.getLogger("azmlinfsrv")

# The origin of a reply, on which the headers depend that the front adds. ``Origin`` in the Rust
# codec of frames has the same names.
RESULT = "result"  # a plain result as JSON
RESPONSE = "response"  # a response object of the script, or of a function that Flask calls around it
SCRIPT_ERROR = "script_error"  # run() raised
TIMEOUT = "timeout"  # run() took too long
SERVER_ERROR = "server_error"  # run() was not called, or its result cannot be sent


class Answer(NamedTuple):
    """A reply without the headers that the front adds to every reply.

    ``reason``: the reason phrase, only if the script chose its own. ``body``: the whole body, or a
    stream of its parts. ``seconds``: the time that run() itself took; None if nobody needs it or
    the caller has measured it. ``location``: the value of ``x-ms-run-error-location`` for a script
    error.
    """

    status: int
    reason: str | None
    headers: list[tuple[str, str]]
    body: bytes | Stream
    origin: str
    seconds: float | None = None
    location: str = ""


# The type of a stream that an async generator makes as run() itself.
PLAIN_TEXT = ("Content-Type", "text/plain; charset=utf-8")

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-authenticate", "te", "transfer-encoding", "upgrade"})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class ResultError(Exception):
    """A result of run() cannot be sent. The message names the fault, and the place in the
    result."""


class ResultTypeError(ResultError, TypeError):
    """A value inside the result has a type that JSON does not have.

    ``place``: its path and type, such as ``$.predictions[3]: set``; empty if it is not known.
    """

    place = ""


class _NoJsonForm(TypeError):
    """Tells the json module that this value cannot be rendered."""


def render(result: Any, method: str, takes_async: bool = False) -> Answer:
    """Make the answer for any result of run(). ``takes_async``: the caller can await the parts of a stream.

    The headers are those of the result alone. The front adds execution time, version, request ids,
    ``x-ms-run-function-failed`` for plain results and for any status of 500 and above, and
    Content-Length: the answer has none for a whole body, but keeps it for a stream if the script
    has set it. Each character of a header value is one byte (latin-1). Bodies of 204 and 304 are
    empty. For HEAD the front sends the length of the body but not the body. The caller must always
    call a stream's ``close()``, even after its last part.

    Raises ResultError, or an exception of the script's own objects, if the result cannot be sent.
    """
    if is_response(result):
        note_response()
        return _render_response(result, method, takes_async)
    return Answer(200, None, [("Content-Type", "application/json")], to_json({} if result is None else result), RESULT)


def is_response(result: Any) -> bool:
    """True for a response of Flask."""
    # While another thread imports Flask, the module lacks some names. Then no result of its types
    # exists yet.
    response_type = getattr(sys.modules.get("flask"), "Response", None)
    return response_type is not None and isinstance(result, response_type)


def _replaceable() -> tuple[object, ...]:
    return json.dumps, json.JSONEncoder, json.JSONEncoder.default, vars(json).get("_default_encoder")


# Python's own functions, kept when this module is imported, which is before the script is loaded.
_dumps = json.dumps
_REPLACEABLE = _replaceable()


def json_is_changed() -> bool:
    """True if the script has replaced a part of the json module, to change how results are
    written."""
    return any(now is not before for now, before in zip(_replaceable(), _REPLACEABLE))


def to_json(value: Any) -> bytes:
    """Render a value as ``json.dumps`` does, extended by ``to_plain``. Raises ResultTypeError,
    which names the value that cannot be rendered."""
    if json_is_changed():
        with contextlib.suppress(TypeError):  # if the script's json.dumps refuses the value, the code below tries it
            text = json.dumps(value)
            return text if isinstance(text, bytes) else text.encode()
    try:
        return _dumps(value, default=to_plain).encode()
    except TypeError as exc:
        # json does not pass keys of dicts to ``default``. If it has refused a key, all keys are
        # replaced here.
        about_key = str(exc).startswith("keys must be")
        if about_key:
            with contextlib.suppress(TypeError):
                return _dumps(_with_plain_keys(value), default=to_plain).encode()
        explained = _explain_type_error(value)
        if explained is None:
            raise
        # The original error is kept as the cause only if an object of the script raised it. If json
        # or this module raised it, its traceback would not help.
        raise explained from (None if about_key or isinstance(exc, _NoJsonForm) else exc)


def to_plain(value: Any) -> Any:
    """Convert a value that json does not know to a simpler one. json calls this again for the
    values inside."""
    for convert in (_numpy_to_plain, _pandas_to_plain, _standard_to_plain):
        plain = convert(value)
        if plain is not value:
            return plain
    raise _NoJsonForm(f"Object of type {type(value).__name__} is not JSON serializable")


def _numpy_to_plain(value: Any) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "ndarray"):  # the name is missing while another thread imports numpy
        return value
    if isinstance(value, numpy.datetime64):
        return None if numpy.isnat(value) else str(value)
    if isinstance(value, numpy.timedelta64):
        return None if numpy.isnat(value) else float(value / numpy.timedelta64(1, "s"))
    if isinstance(value, numpy.ndarray):
        if value.dtype.kind in "mM":  # tolist() would turn nanosecond times into bare integers
            return list(value) if value.ndim else value[()]
        return value.tolist()
    if isinstance(value, numpy.longdouble):
        return float(value)  # because item() returns a longdouble again
    plain = value.item() if isinstance(value, numpy.generic) else value
    return value if isinstance(plain, numpy.generic) else plain


def _pandas_to_plain(value: Any) -> Any:
    pandas = sys.modules.get("pandas")
    if pandas is None or not hasattr(pandas, "api"):  # the name is missing while another thread imports pandas
        return value
    if value is pandas.NaT or value is pandas.NA:
        return None
    if isinstance(value, pandas.DataFrame):
        return value.to_dict(orient="records")
    if isinstance(value, (pandas.Series, pandas.Index, pandas.api.extensions.ExtensionArray)):
        return list(value)
    if isinstance(value, (pandas.Period, pandas.Interval)):
        return str(value)
    return value


def _standard_to_plain(value: Any) -> Any:
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value


def _with_plain_keys(value: Any) -> Any:
    """A copy of the value in which plain values replace the dict keys that are numpy, pandas or
    time values."""
    if isinstance(value, dict):
        return {_plain_key(key): _with_plain_keys(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_plain_keys(inner) for inner in value]
    if _is_plain(value):
        return value
    return _with_plain_keys(to_plain(value))


def _plain_key(key: Any) -> Any:
    return key if _is_plain(key) else to_plain(key)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _explain_type_error(value: Any) -> ResultTypeError | None:
    try:
        place = find_unrenderable(value)
    except RecursionError:
        place = None
    if place is None:
        return None
    path, culprit = place
    kind = type(culprit)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    traps.note_refused_result(culprit)
    error = ResultTypeError(f"Object of type {kind.__name__} is not JSON serializable, found at {path}: {name}")
    error.place = f"{path}: {name}"
    return error


def find_unrenderable(value: Any, path: str = "$") -> tuple[str, Any] | None:
    """Path and value of the first part that cannot be rendered, in the order in which json visits
    the parts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not _has_plain_key(key):
                return f"{path}, as a key", key
            found = find_unrenderable(inner, path + step(key))
            if found is not None:
                return found
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            found = find_unrenderable(inner, f"{path}[{index}]")
            if found is not None:
                return found
    elif not _is_plain(value):
        try:
            plain = to_plain(value)
        except TypeError:
            return path, value
        return find_unrenderable(plain, path)
    return None


def _has_plain_key(key: Any) -> bool:
    try:
        return _is_plain(_plain_key(key))
    except TypeError:
        return False


def step(key: Any) -> str:
    """A key of a dict as a step of a JSON path."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r:.80}]"


def note_response() -> None:
    """Log that run() returned a Response object (contract section 7)."""
    _logger.info("run() output is HTTP Response")


def _render_response(response: Any, method: str, takes_async: bool) -> Answer:
    """Make the answer from a Response if run() was not called through Flask, because it imported
    Flask in this call."""
    status, reason = status_line(response.status)
    environ = {"REQUEST_METHOD": method, "wsgi.url_scheme": "http", "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    headers = wire_headers(response.get_wsgi_headers(environ))
    body = response_body(response, method, takes_async)
    if isinstance(body, bytes):
        headers = without_length(headers)
        close(response.close)
    return Answer(status, reason, headers, body, RESPONSE)


def response_body(response: Any, method: str, takes_async: bool = False) -> bytes | Stream:
    """The body of a Flask response. If it is a stream, the stream closes the response, otherwise
    the caller must."""
    has_body = response.status_code not in (204, 304)
    # werkzeug does not count a dict as a sequence, but it is complete too: its keys are the body.
    if not has_body or response.is_sequence or isinstance(response.response, Collection):
        return b"".join(response.iter_encoded()) if has_body else b""
    if takes_async and isinstance(response.response, AsyncIterable):
        return Stream((), response.close) if method == "HEAD" else AsyncStream(response.response, response.close)
    if not hasattr(response.response, "__iter__"):
        raise ResultTypeError(f"run() returned a response made from {type(response.response).__name__}, not from text")
    if method == "HEAD":  # no part would be sent, so the script is not asked for any
        return Stream((), response.close)
    return Stream(response.response if response.direct_passthrough else response.iter_encoded(), response.close)


def close(closing: Callable[[], object]) -> None:
    """Close a response, which calls functions of the script. Their exceptions are logged and change
    nothing else, because the answer exists already. The same holds if the time limit of run() ends
    during this call."""
    try:
        closing()
    except (Exception, SystemExit):
        _logger.exception("A function that is called when the response is closed failed. The reply is not affected:")


def status_line(text: str) -> tuple[int, str | None]:
    """Split a status such as ``"200 OK"`` into number and reason phrase. The phrase is None if it
    is the usual one."""
    number, _, reason = text.partition(" ")
    # 1xx is refused, because after it the client would wait for another response.
    if not number.isdecimal() or not 200 <= int(number) <= 999:
        raise ResultError(f"run() returned a response with status {text!r}; it has to be 200 to 999")
    status = int(number)
    http = sys.modules["werkzeug.http"]
    standard = http.HTTP_STATUS_CODES.get(status, "Unknown")
    if not reason or reason.upper() in (standard.upper(), "UNKNOWN"):
        return status, None
    if not _HEADER_VALUE.fullmatch(reason):
        raise ResultError(f"run() returned a response with an invalid reason text {reason!r}")
    return status, reason


def wire_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers without hop-by-hop headers. Raises ResultError for a name or value that could end
    its line, because what follows would be read as another header or as the body."""
    kept = [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
    for name, value in kept:
        if not _HEADER_NAME.fullmatch(name):
            raise ResultError(f"run() returned a response with an invalid header name {name!r}")
        if not _HEADER_VALUE.fullmatch(value):
            raise ResultError(f"run() returned a response with an invalid value in header {name!r}")
    return kept


def without_length(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers without Content-Length, because the front sets the length of a whole body
    itself."""
    return [(name, value) for name, value in headers if name.lower() != "content-length"]


class Stream:
    """The parts of a streamed response, as bytes. Empty parts are left out, because an empty chunk
    ends the message.

    ``closing`` closes the script's iterable and calls the ``call_on_close`` functions of the
    response.
    """

    def __init__(self, parts: Iterable[Any], closing: Callable[[], object]) -> None:
        self._parts = iter(parts)
        self._closing = closing

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for part in self._parts:
            sent = _part(part)
            if sent:
                return sent
        raise StopIteration

    def close(self) -> None:
        """Close the response. Exceptions of the script's functions are logged; see the function
        ``close``."""
        close(self._closing)


class AsyncStream(Stream):
    """A stream whose parts an async generator makes. Its user must await them, and call ``aclose()``."""

    def __init__(self, parts: AsyncIterable[Any], closing: Callable[[], object]) -> None:
        super().__init__((), closing)
        self._iterator = parts.__aiter__()

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> bytes:
        while True:
            part = await self._iterator.__anext__()
            sent = _part(part.encode() if isinstance(part, str) else part)
            if sent:
                return sent

    async def aclose(self) -> None:
        """End the generator, finished or not, and close the response. Exceptions are logged and change nothing else."""
        end = getattr(self._iterator, "aclose", None)
        if end is not None:
            try:
                await end()
            except (Exception, SystemExit):
                _logger.exception("An async generator could not be ended. The reply is not affected:")
        self.close()


def _part(part: Any) -> bytes:
    if not isinstance(part, (bytes, bytearray, memoryview)):
        raise ResultTypeError(f"A stream has to yield bytes or str, not {type(part).__name__}")
    return bytes(part)
