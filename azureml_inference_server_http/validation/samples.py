"""Samples: requests to send, and the answers that are expected.

Owns the files: which of a folder are samples, what ``NAME.request.json`` and ``NAME.response.json`` may say. Does not
send anything (``client.py``) and does not compare (``comparing.py``). Only reads files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from . import json_paths
from .json_paths import Pattern

REQUEST_END, RESPONSE_END = ".request.json", ".response.json"
# By the end of a file's name; everything else is binary.
TYPES = {
    **{".json": "application/json", ".txt": "text/plain", ".csv": "text/csv", ".xml": "application/xml"},
    **{".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".wav": "audio/wav"},
}
BINARY = "application/octet-stream"
_REQUEST_KEYS = ("method", "path", "query", "headers", "body", "body_file")
_RESPONSE_KEYS = ("status", "headers", "body", "body_file", "ignore")
_TYPE = "content-type"


class SampleError(Exception):
    """A file that is no usable sample; the text says which part is wrong."""

    def __init__(self, file: str, fault: str) -> None:
        super().__init__(f"{os.path.basename(file)}: {fault}")
        self.file = file


class Expected(NamedTuple):
    """The answer that a sample should get. ``status``: None means any below 400. ``body``: None means any;
    ``is_json`` tells a value from bytes. ``ignore``: parts of the body that may differ."""

    file: str
    status: int | None = None
    headers: Mapping[str, str] = {}
    body: Any = None
    has_body: bool = False
    is_json: bool = True
    ignore: tuple[Pattern, ...] = ()


class Sample(NamedTuple):
    """One request. ``target`` is path and query."""

    name: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    file: str | None = None
    expected: Expected | None = None


def from_json(name: str, value: Any) -> Sample:
    """A sample whose body is this value, as a client would send it."""
    return Sample(name, "POST", "/score", {_TYPE: TYPES[".json"]}, json.dumps(value).encode())


def in_folder(folder: str) -> list[str]:
    """The files in a folder that are samples, by name: neither expected answers, nor hidden files, nor Python files and
    notes (``.md``), nor bodies that a ``NAME.request.json`` beside them names."""
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if not name.startswith(".")]
    files = [path for path in paths if os.path.isfile(path) and not path.endswith((RESPONSE_END, ".md", ".py"))]
    named = {body for path in paths if path.endswith((REQUEST_END, RESPONSE_END)) for body in _named_bodies(path)}
    return [path for path in files if os.path.abspath(path) not in named]


def _named_bodies(path: str) -> set[str]:
    try:
        described = _read_json(path)
    except SampleError:
        return set()  # reported when it is read as a sample
    name = described.get("body_file") if isinstance(described, dict) else None
    return {os.path.abspath(os.path.join(os.path.dirname(path), name))} if isinstance(name, str) else set()


def read(path: str) -> Sample:
    """The sample in a file, with the expected answer beside it. Raises SampleError."""
    if path.endswith(REQUEST_END):
        stem = path[: -len(REQUEST_END)]
        sample = _described_request(path)
    else:
        stem, end = os.path.splitext(path)
        body = _read_bytes(path)
        if end.lower() == ".json":
            _parse_json(path, body)
        sample = Sample("", "POST", "/score", {_TYPE: TYPES.get(end.lower(), BINARY)}, body)
    beside = next((name for name in (path + RESPONSE_END, stem + RESPONSE_END) if os.path.exists(name)), None)
    expected = _expected(beside) if beside else None
    return sample._replace(name=os.path.basename(path), file=path, expected=expected)


def _described_request(path: str) -> Sample:
    described = _read_object(path, _REQUEST_KEYS)
    method = _text(path, described, "method", "POST")
    if not method.isascii() or not method.isalpha():
        raise SampleError(path, f'"method" is {method!r}; it must be a word such as "GET"')
    target = _text(path, described, "path", "/score")
    if not target.startswith("/") or any(letter.isspace() for letter in target):
        raise SampleError(path, f'"path" is {target!r}; it must begin with / and have no blanks')
    query = described.get("query", "")
    if isinstance(query, dict):
        query = urlencode({key: each if isinstance(each, str) else json.dumps(each) for key, each in query.items()})
    if not isinstance(query, str):
        raise SampleError(path, '"query" must be text or an object')
    headers, unsent = _headers(path, described), _unsent(described)
    body, kind = _body(path, described)
    if body and kind and _TYPE not in {name.lower() for name in (*headers, *unsent)}:
        headers[_TYPE] = kind
    return Sample("", method.upper(), f"{target}?{query}" if query else target, headers, body)


def _body(path: str, described: Mapping[str, Any]) -> tuple[bytes, str]:
    """Bytes and type. Text is sent as it stands, every other value as JSON."""
    if "body" in described and "body_file" in described:
        raise SampleError(path, 'it has both "body" and "body_file"; only one can be sent')
    if "body_file" in described:
        name = _text(path, described, "body_file", "")
        end = os.path.splitext(name)[1].lower()
        return _read_bytes(os.path.join(os.path.dirname(path), name)), TYPES.get(end, BINARY)
    if "body" not in described:
        return b"", ""
    body = described["body"]
    if isinstance(body, str):
        return body.encode(), TYPES[".txt"]
    return json.dumps(body).encode(), TYPES[".json"]


def _expected(path: str) -> Expected:
    """The expected answer: the body as JSON; or an object with the keys of ``_RESPONSE_KEYS`` and no others, of which
    ``status``, ``body`` or ``body_file`` must be there."""
    value = _read_json(path)
    if not _describes_answer(value):
        return Expected(path, body=value, has_body=True)
    ignored = _ignored(path, value.get("ignore", []))
    if "body" in value and "body_file" in value:
        raise SampleError(path, 'it has both "body" and "body_file"; only one can be expected')
    body, has_body, is_json = value.get("body"), "body" in value, True
    if "body_file" in value:
        name = _text(path, value, "body_file", "")
        body, has_body = _read_bytes(os.path.join(os.path.dirname(path), name)), True
        is_json = name.lower().endswith(".json")
        if is_json:
            body = _parse_json(os.path.join(os.path.dirname(path), name), body)
    return Expected(path, value.get("status"), _headers(path, value), body, has_body, is_json, ignored)


def _ignored(path: str, given: Any) -> tuple[Pattern, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise SampleError(path, '"ignore" must be a list of JSON paths')
    try:
        return tuple(map(json_paths.parse, given))
    except json_paths.PathError as error:
        raise SampleError(path, f'"ignore": {error}') from error


def _describes_answer(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) <= set(_RESPONSE_KEYS):
        return False
    status = value.get("status")
    is_status = isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599
    return is_status if "status" in value else bool({"body", "body_file"} & set(value))


# ---- Parts of a file


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise SampleError(path, f"cannot be read ({error.strerror})") from error


def _read_json(path: str) -> Any:
    return _parse_json(path, _read_bytes(path))


def _parse_json(path: str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SampleError(path, f"is not JSON: {error}") from error


def _read_object(path: str, keys: Iterable[str]) -> dict[str, Any]:
    value = _read_json(path)
    if not isinstance(value, dict):
        raise SampleError(path, f"must hold a JSON object with the keys {', '.join(keys)}")
    unknown = sorted(set(value) - set(keys))
    if unknown:
        raise SampleError(path, f"has the unknown key {unknown[0]!r}; there are {', '.join(keys)}")
    return value


def _text(path: str, described: Mapping[str, Any], key: str, default: str) -> str:
    value = described.get(key, default)
    if not isinstance(value, str):
        raise SampleError(path, f'"{key}" must be text')
    return value


def _unsent(described: Mapping[str, Any]) -> list[str]:
    """The headers of a request that are null: they are not sent, as a body may come without a Content-Type."""
    headers = described.get("headers")
    return [name for name, value in headers.items() if value is None] if isinstance(headers, dict) else []


def _headers(path: str, described: Mapping[str, Any]) -> dict[str, str]:
    headers = described.get("headers", {})
    if isinstance(headers, dict):
        headers = {name: value for name, value in headers.items() if value is not None}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise SampleError(path, '"headers" must be an object whose values are text')
    if any("\n" in text or "\r" in text for pair in headers.items() for text in pair):
        raise SampleError(path, '"headers" must not have line ends')
    return dict(headers)
