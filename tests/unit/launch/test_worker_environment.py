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
    ],
)
def test_placeholders_stand_for_the_slot(text: str, slot: int, expected: dict[str, str]) -> None:
    assert variables(parse(text), slot) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("CUDA", "'CUDA' is not NAME=VALUE"),
        ("1A=b", "'1A=b' is not NAME=VALUE"),
        ("=b", "'=b' is not NAME=VALUE"),
        ("A={slot}", "{slot} is no placeholder"),
        ("A={worker%0}", "{worker%0} is no placeholder"),
        ("A={worker + 1}", "{worker + 1} is no placeholder"),
        ("A=1;A=2", "A is given twice"),
        (" ; ", "no variable"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        parse(text)
