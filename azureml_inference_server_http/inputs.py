"""From the request to the arguments of run(), where the Rust worker loop does not do it alone.

Owns the query string rules and the checks for schema-decorated scripts. Does not decode plain text bodies (Rust does)
and does not build raw requests (``flask_context``). Runs in worker processes. Rules: contract section 6.
"""

from __future__ import annotations

import codecs
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes


class InputError(Exception):
    """A request that a schema-decorated script cannot be called for; answered with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


_KEEP_QUOTED = "azmlinfsrv.keep_quoted"


def _keep_quoted(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are not UTF-8 stay percent-encoded, so that the text shows what was sent."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return quote_from_bytes(error.object[error.start : error.end], safe=""), error.end


codecs.register_error(_KEEP_QUOTED, _keep_quoted)


def query_values(query: bytes) -> dict[str, Any]:
    """The query as a dict: keys in first-seen order, each value parsed as JSON if possible, repeated keys as a list."""
    collected: dict[str, list[Any]] = {}
    for field in query.split(b"&"):
        if field:
            name, _, value = field.partition(b"=")
            collected.setdefault(_unquote(name), []).append(_parse(_unquote(value)))
    return {name: values[0] if len(values) == 1 else values for name, values in collected.items()}


def query_input(query: bytes) -> str:
    """The query as the JSON object text an undecorated run() receives for GET."""
    return json.dumps(query_values(query))


def _unquote(text: bytes) -> str:
    return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8", _KEEP_QUOTED)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def schema_arguments(
    parameters: Sequence[inspect.Parameter], method: str, content_type: str | None, query: bytes, body: bytes
) -> dict[str, Any]:
    """Keyword arguments of a schema-decorated run(), without ``request_headers``.

    GET takes them from the query, every other method from a JSON body. Raises InputError for what the client did wrong;
    ValueError or RecursionError, which the caller answers as an internal error, for JSON that Python refuses to hold
    (text that is not UTF-8, numbers with too many digits, too deep nesting).
    """
    if method == "GET":
        return bind_parameters(parameters, query_values(query))
    if not is_json_type(content_type):
        raise InputError(415, "Expects Content-Type to be application/json")
    if not body:
        raise InputError(400, "POST body is empty. Expecting a JSON dictionary.")
    try:
        values = json.loads(body)
    except json.JSONDecodeError as exc:
        raise InputError(400, f"POST body could not be decoded as JSON: {exc}") from exc
    return bind_parameters(parameters, values)


def is_json_type(content_type: str | None) -> bool:
    """Whether a Content-Type header says application/json or application/*+json; case and parameters do not matter."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def bind_parameters(parameters: Sequence[inspect.Parameter], values: Any) -> dict[str, Any]:
    """A parsed body as keyword arguments: by name, else the parameter's default. What run() does not take is ignored.

    Raises InputError if the body is not an object, or for the first parameter (in signature order) without a value.
    """
    if not isinstance(values, Mapping):
        raise InputError(400, "POST body should be a JSON dictionary.")
    arguments: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name in values:
            arguments[parameter.name] = values[parameter.name]
        elif parameter.default is not inspect.Parameter.empty:
            arguments[parameter.name] = parameter.default
        else:
            raise InputError(400, f"A value is not provided for the {parameter.name!r} parameter.")
    return arguments
