"""``launch/worker_environment.py``: the variables of ``--worker_env``, by slot."""

from __future__ import annotations

import re

import pytest

from azureml_inference_server_http.launch.worker_environment import parse, variables


@pytest.mark.parametrize(
    ("text", "slot", "expected"),
    [
        ("CUDA_VISIBLE_DEVICES={worker}", 3, {"CUDA_VISIBLE_DEVICES": "3"}),
        ("A={worker%2}; B={worker}-{worker%2}", 3, {"A": "1", "B": "3-1"}),
        ("A=x y=z\nB=", 0, {"A": "x y=z", "B": ""}),
        ('A={"a": 1};', 1, {"A": '{"a": 1}'}),
        ('A={"worker": {worker}}', 1, {"A": '{"worker": 1}'}),
        ("A=a worker, coworker}, {workers", 1, {"A": "a worker, coworker}, {workers"}),
    ],
)
def test_placeholders_stand_for_the_slot(text: str, slot: int, expected: dict[str, str]) -> None:
    assert variables(parse(text), slot) == expected


NOT_AN_ENTRY = "is not NAME=VALUE; semicolons separate entries, and no value can have one"
NO_PLACEHOLDER = "has a brace that is not part of {worker} or {worker%4}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("CUDA", f"entry 1 {NOT_AN_ENTRY}"),
        ("A=1; 1A=b", f"entry 2 {NOT_AN_ENTRY}"),
        ("=b", f"entry 1 {NOT_AN_ENTRY}"),
        ("A=secret;rest", f"entry 2 {NOT_AN_ENTRY}"),
        ("A={slot}", f"the value of A {NO_PLACEHOLDER}"),
        ("A=0;B={worker%0}", f"the value of B {NO_PLACEHOLDER}"),
        ("A={worker + 1}", f"the value of A {NO_PLACEHOLDER}"),
        ("A={worker", f"the value of A {NO_PLACEHOLDER}"),
        ("A=worker}", f"the value of A {NO_PLACEHOLDER}"),
        ("A={ worker }", f"the value of A {NO_PLACEHOLDER}"),
        ("A={worker%2", f"the value of A {NO_PLACEHOLDER}"),
        ("A=cuda:worker%2}", f"the value of A {NO_PLACEHOLDER}"),
        ("A=1;A=2", "A is given twice"),
        (" ; ", "no variable"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        parse(text)
