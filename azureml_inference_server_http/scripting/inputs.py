"""Makes the arguments of run() from a request, if Rust (``src/worker/convert/input.rs``) cannot do
that alone.

Owns the rules for query strings, and the checks for schema-decorated scripts. Rust decodes plain
text bodies, and ``flask_context`` makes raw requests. Runs in workers. Rules: contract section 6.
"""

from __future__ import annotations

import codecs
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes


class InputError(Exception):
    """The request has no valid arguments for a schema-decorated run(). The reply has this status
    and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


_KEEP_QUOTED = "azmlinfsrv.keep_quoted"


def _keep_quoted(error: UnicodeError) -> tuple[str, int]:
    """Keep bytes that are not UTF-8 percent-encoded, so that the text shows them as the client sent
    them."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return quote_from_bytes(error.object[error.start : error.end], safe=""), error.end


codecs.register_error(_KEEP_QUOTED, _keep_quoted)


def query_values(query: bytes) -> dict[str, Any]:
    """The query as a dict, in the order of the first occurrences. Values are parsed as JSON if
    possible. A repeated key gets the list of its values."""
    collected: dict[str, list[Any]] = {}
    for field in query.split(b"&"):
        if field:
            name, _, value = field.partition(b"=")
            collected.setdefault(_unquote(name), []).append(_parse(_unquote(value)))
    return {name: values[0] if len(values) == 1 else values for name, values in collected.items()}


def query_input(query: bytes) -> str:
    """The query as the text of a JSON object, which an undecorated run() gets for GET."""
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

    They come from the query for GET, and from a JSON body for every other method. Raises InputError
    for an error of the client. For JSON that Python cannot read (text that is not UTF-8, numbers
    with too many digits, too deep nesting) it raises ValueError or RecursionError, which the caller
    answers as an internal error.
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
    """True if a Content-Type header is application/json or application/*+json, in any case and with
    any parameters."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def bind_parameters(parameters: Sequence[inspect.Parameter], values: Any) -> dict[str, Any]:
    """Keyword arguments from a parsed body: the value of each parameter's name, or else its
    default. Other keys of the body are ignored.

    Raises InputError if the body is not an object, or for the first parameter (in signature order)
    without a value.
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
