"""From the result of run() to status, headers and body, for every result the Rust JSON fast path does not take.

Owns JSON with ``json.dumps`` defaults plus the types listed in ``_to_plain``, and Flask responses including streams.
Does not add what belongs to the request (ids, timing, Content-Length, Date) and does not log. Imports none of Flask,
numpy and pandas: a result of their types exists only if the script imported them. Runs in worker processes. Rules:
contract section 7.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Callable, NamedTuple

_logger = logging.getLogger("azmlinfsrv")

# Where a reply comes from, as the front's own headers depend on it; ``Origin`` in src/frame.rs has the same names.
RESULT = "result"  # a plain result as JSON
RESPONSE = "response"  # a response object of the script, or of a function that Flask calls around it
SCRIPT_ERROR = "script_error"  # run() raised, or took too long
SERVER_ERROR = "server_error"  # run() was not called, or its result cannot be sent


class Answer(NamedTuple):
    """What goes on the wire, without the headers that the front adds to every reply.

    ``reason``: the reason text, only where the script chose one of its own. ``body``: all of it, or the parts of a
    stream. ``seconds``: how long run() itself took; None where it does not matter or the caller has measured it.
    ``location``: ``x-ms-run-error-location`` of a script error.
    """

    status: int
    reason: str | None
    headers: list[tuple[str, str]]
    body: bytes | Stream
    origin: str
    seconds: float | None = None
    location: str = ""


_HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-authenticate", "te", "transfer-encoding", "upgrade"})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class ResultError(Exception):
    """A result of run() that cannot be sent. The message says what is wrong with it, and where in it."""


class ResultTypeError(ResultError, TypeError):
    """A value inside the result is of a type that JSON cannot hold."""


class _NoJsonForm(TypeError):
    """Tells json that there is no way to render this value."""


def render(result: Any, method: str) -> Answer:
    """Turn any result of run() into what goes on the wire.

    The headers are those of the result alone. The caller adds Content-Length (never present here for a whole body; kept
    for a stream whose script set it), execution time, version, request ids, and ``x-ms-run-function-failed`` for plain
    results and for any status of 500 and above. Each character of a header value is one byte (latin-1). Bodies of 204
    and 304 are empty; for HEAD the caller sends the length of the body but not the body. A stream's ``close()`` must be
    called in any case, after the last chunk too.

    Raises whatever makes the result unusable: ResultError, or an exception of the script's own objects.
    """
    flask = sys.modules.get("flask")
    # While another thread imports Flask the module exists without its names, but then no result can be of its types.
    response_type = getattr(flask, "Response", None)
    if response_type is not None and isinstance(result, response_type):
        note_response()
        return _render_response(result, method)
    return Answer(200, None, [("Content-Type", "application/json")], to_json({} if result is None else result), RESULT)


def _replaceable() -> tuple[object, ...]:
    return json.dumps, json.JSONEncoder, json.JSONEncoder.default, vars(json).get("_default_encoder")


# As imported, before the script is.
_dumps = json.dumps
_REPLACEABLE = _replaceable()


def json_is_changed() -> bool:
    """Whether the script has replaced a part of the json module, so as to change how every result is written."""
    return any(now is not before for now, before in zip(_replaceable(), _REPLACEABLE))


def to_json(value: Any) -> bytes:
    """``json.dumps`` defaults, extended by ``_to_plain``. Raises ResultTypeError naming the value that is wrong."""
    if json_is_changed():
        with contextlib.suppress(TypeError):  # what the script's own way cannot write, ours may
            text = json.dumps(value)
            return text if isinstance(text, bytes) else text.encode()
    try:
        return _dumps(value, default=_to_plain).encode()
    except TypeError as exc:
        # default= is not asked about keys, so keys of other types are replaced once they were refused.
        about_key = str(exc).startswith("keys must be")
        if about_key:
            with contextlib.suppress(TypeError):
                return _dumps(_with_plain_keys(value), default=_to_plain).encode()
        explained = _explain_type_error(value)
        if explained is None:
            raise
        # Frames of json and of this file tell nothing; a TypeError of the script's own objects would.
        raise explained from (None if about_key or isinstance(exc, _NoJsonForm) else exc)


def _to_plain(value: Any) -> Any:
    """One step from a value json does not know towards one it does; json asks again for what is inside."""
    for convert in (_numpy_to_plain, _pandas_to_plain, _standard_to_plain):
        plain = convert(value)
        if plain is not value:
            return plain
    raise _NoJsonForm(f"Object of type {type(value).__name__} is not JSON serializable")


def _numpy_to_plain(value: Any) -> Any:
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(numpy, "ndarray"):  # the latter while another thread imports it
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
        return float(value)  # its item() is a longdouble again
    plain = value.item() if isinstance(value, numpy.generic) else value
    return value if isinstance(plain, numpy.generic) else plain


def _pandas_to_plain(value: Any) -> Any:
    pandas = sys.modules.get("pandas")
    if pandas is None or not hasattr(pandas, "api"):  # the latter while another thread imports it
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
    """A copy in which dict keys that are numpy, pandas or time values are replaced by what they render as."""
    if isinstance(value, dict):
        return {_plain_key(key): _with_plain_keys(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_plain_keys(inner) for inner in value]
    if _is_plain(value):
        return value
    return _with_plain_keys(_to_plain(value))


def _plain_key(key: Any) -> Any:
    return key if _is_plain(key) else _to_plain(key)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _explain_type_error(value: Any) -> ResultTypeError | None:
    try:
        place = _find_unrenderable(value, "$")
    except RecursionError:
        place = None
    if place is None:
        return None
    path, culprit = place
    kind = type(culprit)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return ResultTypeError(f"Object of type {kind.__name__} is not JSON serializable, found at {path}: {name}")


def _find_unrenderable(value: Any, path: str) -> tuple[str, Any] | None:
    """Path and value of the first part that JSON cannot hold, in the order json meets it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not _has_plain_key(key):
                return f"{path}, as a key", key
            found = _find_unrenderable(inner, path + _step(key))
            if found is not None:
                return found
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            found = _find_unrenderable(inner, f"{path}[{index}]")
            if found is not None:
                return found
    elif not _is_plain(value):
        try:
            plain = _to_plain(value)
        except TypeError:
            return path, value
        return _find_unrenderable(plain, path)
    return None


def _has_plain_key(key: Any) -> bool:
    try:
        return _is_plain(_plain_key(key))
    except TypeError:
        return False


def _step(key: Any) -> str:
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r:.80}]"


def note_response() -> None:
    """Log that run() returned a Response by itself (contract section 7)."""
    _logger.info("run() output is HTTP Response")


def _render_response(response: Any, method: str) -> Answer:
    """A response of a run() that was not called by way of Flask: it imported Flask only now."""
    status, reason = status_line(response.status)
    environ = {"REQUEST_METHOD": method, "wsgi.url_scheme": "http", "SERVER_NAME": "localhost", "SERVER_PORT": "80"}
    headers = wire_headers(response.get_wsgi_headers(environ))
    body = response_body(response, method)
    if isinstance(body, bytes):
        headers = without_length(headers)
        close(response.close)
    return Answer(status, reason, headers, body, RESPONSE)


def response_body(response: Any, method: str) -> bytes | Stream:
    """The body of a Flask response. Closing the response is the caller's task for bytes, the stream's for a stream."""
    has_body = response.status_code not in (204, 304)
    # A dict is no sequence to werkzeug, but all there as well: its keys are the body.
    if not has_body or response.is_sequence or isinstance(response.response, Collection):
        return b"".join(response.iter_encoded()) if has_body else b""
    if not hasattr(response.response, "__iter__"):
        raise ResultTypeError(f"run() returned a response made from {type(response.response).__name__}, not from text")
    if method == "HEAD":  # nobody would get the parts, so the script need not make them
        return Stream((), response.close)
    return Stream(response.response if response.direct_passthrough else response.iter_encoded(), response.close)


def close(closing: Callable[[], object]) -> None:
    """Call what closes a response. What the script's functions raise in it is logged and changes nothing else, because
    the answer exists by then; also if the time limit of run() ends just here."""
    try:
        closing()
    except (Exception, SystemExit):
        _logger.exception("The reply is sent as it is, but a function failed that runs when the response is closed:")


def status_line(text: str) -> tuple[int, str | None]:
    """Number and reason of a status such as ``"200 OK"``; the reason only where the script chose one of its own."""
    number, _, reason = text.partition(" ")
    if not number.isdecimal() or not 200 <= int(number) <= 999:  # after a 1xx the client would wait for the real answer
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
    """The headers without hop-by-hop ones, checked so that no text of the script can break the message apart."""
    kept = [(name, value) for name, value in headers if name.lower() not in _HOP_BY_HOP]
    for name, value in kept:
        if not _HEADER_NAME.fullmatch(name):
            raise ResultError(f"run() returned a response with an invalid header name {name!r}")
        if not _HEADER_VALUE.fullmatch(value):
            raise ResultError(f"run() returned a response with an invalid value in header {name!r}")
    return kept


def without_length(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers without Content-Length: the front counts a whole body itself."""
    return [(name, value) for name, value in headers if name.lower() != "content-length"]


class Stream:
    """Parts of a streamed response as bytes, without empty ones, which would end a chunked message.

    ``closing`` ends the script's iterable and runs the response's ``call_on_close`` functions.
    """

    def __init__(self, parts: Iterable[Any], closing: Callable[[], object]) -> None:
        self._parts = iter(parts)
        self._closing = closing

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        for part in self._parts:
            if not isinstance(part, (bytes, bytearray, memoryview)):
                raise ResultTypeError(f"A stream has to yield bytes or str, not {type(part).__name__}")
            if len(part):
                return bytes(part)
        raise StopIteration

    def close(self) -> None:
        """Never raises what the script's functions do; see the function ``close``."""
        close(self._closing)
