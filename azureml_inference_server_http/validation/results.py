"""What is wrong with a result of run() although the server sends it, or because it cannot.

Owns the traps that a look at the object itself shows; the answer alone does not tell a tuple from a list. Does not
render: ``scripting/outputs.py`` does, and says which value it cannot write. Runs in the worker that is validated.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..scripting import outputs, traps


class Trap(NamedTuple):
    """One thing that is wrong: ``name`` as in the table of findings, and where in the result."""

    name: str
    detail: str


def traps_of(result: Any) -> list[Trap]:
    """Everything that is wrong with this result, most important first."""
    return list(_traps(result))


def _traps(result: Any) -> Iterator[Trap]:
    if result is None:
        yield Trap("returns-nothing", "run() returned None, which is sent as {}")
    elif inspect.iscoroutine(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        kind = type(result).__name__.replace("_", " ")
        yield Trap("run-not-awaited", f"run() returned a {kind}, whose code the server does not run")
    elif _is_response(result):
        # Werkzeug iterates what it was made from: the keys, for a dict.
        if isinstance(result.response, dict):
            shown = "".join(map(str, result.response))[:60]
            yield Trap("response-from-dict", f"the response was made from a dict, so its body is {shown!r}")
    else:
        yield from _traps_of_value(result)


def _is_response(result: Any) -> bool:
    flask = sys.modules.get("flask")
    response_type = getattr(flask, "Response", None)
    return response_type is not None and isinstance(result, response_type)


def _traps_of_value(result: Any) -> Iterator[Trap]:
    if isinstance(result, tuple) and len(result) in (2, 3) and traps.is_status(result[1]):
        yield Trap(
            "status-in-tuple",
            f"run() returned a tuple with the status {result[1]}, which is sent as a JSON list with status 200",
        )
    if isinstance(result, str) and traps.is_json_text(result):
        yield Trap("json-twice", f"run() returned JSON text, which is sent as a string: {result[:40]!r}")
    if outputs.json_is_changed():
        return  # the script says by itself what JSON can hold
    try:
        found = outputs.find_unrenderable(result)
    except RecursionError:
        return  # the result holds itself; the answer to this call says so
    if found is not None:
        path, value = found
        yield Trap("not-renderable", f"{path} is of type {_type_name(value)}, which JSON does not have")
        return
    path_of_nan = _find_not_a_number(result, "$")
    if path_of_nan is not None:
        path, number = path_of_nan
        yield Trap("not-a-number", f"{path} is {number}, which JSON does not have")


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _find_not_a_number(value: Any, path: str) -> tuple[str, float] | None:
    """Path and value of the first number that JSON cannot hold, as the server will write the result."""
    if isinstance(value, float):
        return None if math.isfinite(value) else (path, value)
    if isinstance(value, (str, int)) or value is None:
        return None
    if isinstance(value, dict):
        inside = ((outputs.step(key), inner) for key, inner in value.items())
    elif isinstance(value, (list, tuple)):
        inside = ((f"[{index}]", inner) for index, inner in enumerate(value))
    else:
        return _find_not_a_number(outputs.to_plain(value), path)
    for step, inner in inside:
        found = _find_not_a_number(inner, path + step)
        if found is not None:
            return found
    return None
