"""When answers count as equal, and how differences are told."""

from __future__ import annotations

import pytest

from azureml_inference_server_http.validation import json_paths
from azureml_inference_server_http.validation.comparing import (
    Answer,
    Tolerance,
    between,
    differences,
    told,
    with_expected,
)
from azureml_inference_server_http.validation.samples import Expected

EXACT = Tolerance(0.0, 0.0)


def paths(expected: object, actual: object, tolerance: Tolerance = EXACT, *ignored: str) -> list[str]:
    return [found.path for found in differences(expected, actual, tolerance, map(json_paths.parse, ignored))]


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "a", [], {}, {"a": [1, {"b": None}]}])
def test_a_value_equals_itself(value: object):
    assert paths(value, value) == []


@pytest.mark.parametrize(
    ("expected", "actual", "path"),
    [
        (1, 2, "$"),
        (1, True, "$"),
        (1, "1", "$"),
        (None, 0, "$"),
        ({"a": 1}, {"a": 2}, "$.a"),
        ({"a": 1}, {}, "$.a"),
        ({}, {"a": 1}, "$.a"),
        ({"a b": 1}, {"a b": 2}, "$['a b']"),
        ([1, 2], [1, 3], "$[1]"),
        ([1], [1, 2], "$"),
        ({"rows": [{"x": 1}]}, {"rows": [{"x": 2}]}, "$.rows[0].x"),
        (float("nan"), 1.0, "$"),
        (float("inf"), float("-inf"), "$"),
    ],
)
def test_the_place_of_a_difference(expected: object, actual: object, path: str):
    assert paths(expected, actual) == [path]


def test_a_missing_part_is_told_as_nothing():
    assert str(differences({"a": 1}, {}, EXACT)[0]) == "$.a: expected 1, got nothing"
    assert str(differences({}, {"a": 1}, EXACT)[0]) == "$.a: expected nothing, got 1"
    assert str(differences([1], [1, 2], EXACT)[0]) == "$: expected 1 item, got 2 items"


@pytest.mark.parametrize(
    ("expected", "actual", "tolerance", "equal"),
    [
        (1, 1.0, EXACT, True),
        (100.0, 100.5, Tolerance(0.01, 0.0), True),
        (100.0, 102.0, Tolerance(0.01, 0.0), False),
        (0.0, 0.001, Tolerance(0.01, 0.0), False),
        (0.0, 0.001, Tolerance(0.0, 0.01), True),
        (float("nan"), float("nan"), EXACT, True),
        (float("inf"), float("inf"), EXACT, True),
        (float("inf"), 1e308, Tolerance(1.0, 1.0), False),
        (10**400, 10**400 + 1, Tolerance(0.1, 0.0), False),
    ],
)
def test_numbers_within_tolerance(expected: float, actual: float, tolerance: Tolerance, equal: bool):
    assert (paths(expected, actual, tolerance) == []) is equal


@pytest.mark.parametrize(
    ("pattern", "path", "matched"),
    [
        ("$.a", ("a",), True),
        ("a", ("a",), True),
        ("$.a", ("a", "b"), False),
        ("$.a[0]", ("a", 0), True),
        ("$.a[*].time", ("a", 7, "time"), True),
        ("$.a.*", ("a", "b"), True),
        ("$['a b'].c", ("a b", "c"), True),
        ("$..time", ("time",), True),
        ("$..time", ("a", 0, "time"), True),
        ("$..time", ("a", 0, "times"), False),
        ("$.a..[0]", ("a", "b", 0), True),
        ("$..*", ("a",), True),
    ],
)
def test_patterns(pattern: str, path: tuple[str, ...], matched: bool):
    assert json_paths.is_matched(path, json_paths.parse(pattern)) is matched


@pytest.mark.parametrize("text", ["$", "", "$.", "$..", "$.a[", "$.a[x]", "$ .a", "$.a b"])
def test_what_is_no_path(text: str):
    with pytest.raises(json_paths.PathError):
        json_paths.parse(text)


def test_parts_are_left_out():
    assert paths({"a": 1, "time": 1}, {"a": 1, "time": 2}, EXACT, "$.time") == []
    assert paths({"a": 1, "time": 1}, {"a": 1}, EXACT, "$.time") == []
    assert paths({"a": 1}, {"a": 1, "time": 1}, EXACT, "$.time") == []
    assert paths({"a": 1, "time": 1}, {"a": 2, "time": 2}, EXACT, "$.time") == ["$.a"]


def test_status_headers_and_body_of_an_expected_answer():
    expected = Expected("f", 201, {"X-Kind": "a"}, {"n": 1}, True, True)
    good = Answer(201, {"x-kind": "a"}, b'{"n": 1}')
    assert with_expected(expected, good, EXACT) == []
    bad = with_expected(expected, Answer(200, {}, b"oops"), EXACT)
    assert [found.path for found in bad] == ["status", "header X-Kind", "body"]
    assert "no JSON" in bad[2].actual


def test_binary_bodies_are_compared_byte_by_byte():
    expected = Expected("f", body=b"\x00\xff", has_body=True, is_json=False)
    assert with_expected(expected, Answer(200, {}, b"\x00\xff"), EXACT) == []
    assert told(with_expected(expected, Answer(200, {}, b"\x00"), EXACT)) == r"body: expected '\x00\xff', got '\x00'"


def test_two_answers_of_one_server():
    first = Answer(200, {"x-ms-request-id": "1"}, b'{"n": 1}')
    assert between(first, first._replace(headers={"x-ms-request-id": "2"}), EXACT) == []
    assert told(between(first, first._replace(body=b'{"n": 2}'), EXACT)) == "$.n: expected 1, got 2"
    assert told(between(first, first._replace(status=500), EXACT)) == "status: expected 200, got 500"


def test_only_the_first_differences_are_told():
    found = differences(list(range(9)), [-1] * 9, EXACT)
    assert told(found).endswith("; and 4 more")
