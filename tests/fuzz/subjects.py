"""What is fuzzed: for each subject its script, how an input becomes a request, and which replies
are right.

Ties the generators to the wire; knows nothing about sending. Runs in the test process.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Callable, NamedTuple

from harness import request

from . import documents, results, texts

SCRIPTS = Path(__file__).parent / "scripts"


class Case(NamedTuple):
    """One request, and all (status, body) that are right for it."""

    request: bytes
    accepted: set[tuple[int, bytes]]


@dataclasses.dataclass(frozen=True)
class Subject:
    """One kind of input. ``draw`` makes an input, ``case`` what to send for it, ``smaller`` simpler
    inputs."""

    name: str
    script: str
    draw: Callable[[Random, bool], Any]
    case: Callable[[Any], Case]
    smaller: Callable[[Any], Iterator[Any]]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


def _result_case(recipe: Any) -> Case:
    body = base64.b64encode(results.shapes.dump(recipe))
    failed = documents.refusal(500, documents.INTERNAL)
    accepted = {failed if body is None else (200, body) for body in results.expected(recipe)}
    return Case(request("POST", "/score", body), accepted)


def _document_case(document: tuple[str, bytes]) -> Case:
    content_type, body = document
    return Case(request("POST", "/score", body, {"Content-Type": content_type}), documents.expected(body))


def _body_case(typed: tuple[str, bytes]) -> Case:
    content_type, body = typed
    sent = request("POST", "/score", body, {"Content-Type": content_type})
    return Case(sent, texts.expected_body(content_type, body))


def _query_case(query: bytes) -> Case:
    return Case(request("GET", f"/score?{query.decode('ascii')}"), texts.expected_query(query))


def _smaller_typed(typed: tuple[str, bytes]) -> Iterator[tuple[str, bytes]]:
    content_type, body = typed
    if content_type != "application/json":
        yield "application/json", body
    yield from ((content_type, less) for less in smaller_bytes(body))


def smaller_bytes(data: bytes) -> Iterator[bytes]:
    """The data without one half, one quarter, … one byte of it."""
    size = len(data)
    while size > 1:
        size = (size + 1) // 2
        for start in range(0, len(data), size):
            yield data[:start] + data[start + size :]
    if data:
        yield b""


SUBJECTS = (
    Subject("results", "rebuild.py", results.draw, _result_case, results.smaller),
    Subject(
        "results in a Flask context", "rebuild.py", results.draw, _result_case, results.smaller, {"FUZZ_FLASK": "1"}
    ),
    Subject("JSON bodies", "describe.py", documents.draw, _document_case, _smaller_typed),
    Subject("text bodies", "give_back.py", texts.draw_body, _body_case, _smaller_typed),
    Subject("queries", "give_back.py", texts.draw_query, _query_case, smaller_bytes),
)
