"""Traps in results of run(), and containers that grow."""

from __future__ import annotations

import asyncio
import collections
import json
from types import ModuleType
from typing import Any

import numpy
import pandas
import pytest

from azureml_inference_server_http.api.aml_response import AMLResponse
from azureml_inference_server_http.validation import state
from azureml_inference_server_http.validation.results import traps_of


def names(result: Any) -> list[str]:
    return [trap.name for trap in traps_of(result)]


@pytest.mark.parametrize(
    "result",
    [
        {},
        [],
        0,
        "text",
        "[not JSON",
        "12",
        {"a": [1, 2.5, None, True]},
        (1, 2),
        ({"a": 1}, 7),
        ({"a": 1}, True),
        (1, 200, 3, 4),
        numpy.array([1.0]),
        numpy.float32(1),
        pandas.DataFrame({"a": [1.0]}),
        AMLResponse("text", 200),
        AMLResponse({"a": 1}, 200, json_str=True),
    ],
    ids=repr,
)
def test_good_results(result: Any):
    assert names(result) == []


@pytest.mark.parametrize(
    ("result", "name", "detail"),
    [
        (None, "returns-nothing", "None"),
        (({"e": 1}, 404), "status-in-tuple", "status 404"),
        (({"e": 1}, 400, {"X": "y"}), "status-in-tuple", "status 400"),
        (json.dumps({"a": 1}), "json-twice", '{"a": 1}'),
        (" [1]", "json-twice", "[1]"),
        (float("nan"), "not-a-number", "$ is nan"),
        ({"a": [1, float("-inf")]}, "not-a-number", "$.a[1] is -inf"),
        ({"a b": float("nan")}, "not-a-number", "$['a b'] is nan"),
        (numpy.array([[1.0, numpy.nan]]), "not-a-number", "$[0][1] is nan"),
        (pandas.DataFrame({"a": [1.0, None]}), "not-a-number", "$[1].a is nan"),
        ({"a": [1, {2}]}, "not-renderable", "$.a[1] is of type set"),
        ({"a": b"x"}, "not-renderable", "$.a is of type bytes"),
        (AMLResponse({"score": 1, "time": 2}, 200), "response-from-dict", "'scoretime'"),
    ],
    ids=repr,
)
def test_traps(result: Any, name: str, detail: str):
    found = traps_of(result)
    assert [trap.name for trap in found] == [name]
    assert detail in found[0].detail


def test_what_the_script_has_taught_json_is_no_trap(monkeypatch):
    assert names({1}) == ["not-renderable"]
    monkeypatch.setattr(json.JSONEncoder, "default", lambda self, value: sorted(value))
    assert names({1}) == []


def test_a_result_that_holds_itself_does_not_fail_here():
    result: list[Any] = []
    result.append(result)
    assert names(result) == []


def test_code_that_nobody_runs():
    async def later() -> None: ...

    async def stream() -> Any:
        yield 1

    coroutine = later()
    for result in (coroutine, (number for number in ()), stream()):
        assert names(result) == ["run-not-awaited"]
    asyncio.run(coroutine)


# ---- State


def module(**globals: Any) -> ModuleType:
    made = ModuleType("entry_module")
    made.__file__ = "score.py"
    vars(made).update(globals)
    return made


def test_containers_that_grow():
    class Model:
        __module__ = "entry_module"

        def __init__(self) -> None:
            self.seen: list[int] = []

    script = module(history=[1], cache={}, words={"a"}, recent=collections.deque(maxlen=2), model=Model(), number=1)

    def run(data: str, seen: list[int] = [], *, more: dict[int, int] = {}) -> None:  # noqa: B006
        seen.append(1)
        more[1] = 1

    before = state.sizes([script], run)
    script.history.append(2)
    script.cache["a"] = 1
    script.recent.append(1)
    script.model.seen.append(1)
    run("")
    grown = {held.name: (old, new) for held, old, new in state.grown(before, state.sizes([script], run))}
    assert grown == {
        **{"history": (1, 2), "cache": (0, 1), "recent": (0, 1), "model.seen": (0, 1)},
        **{"the default of seen": (0, 1), "the default of more": (0, 1)},
    }


def test_a_new_container_has_not_grown():
    script = module()
    before = state.sizes([script], None)
    script.history = [1]
    assert state.grown(before, state.sizes([script], None)) == []
