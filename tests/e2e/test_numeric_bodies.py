"""Large arrays by schema: read straight from the JSON body if they are plain numbers, otherwise as
ever."""

from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.any_worker_class

PLAIN = {"float64": "[1.5]", "float32": "[1]", "int64": "[1]", "int32": "[1]", "uint8": "[1]", "rows": "[[1, 2, 3]]"}
PADDING = " " * 16 * 1024


def score(server, text, content_type="application/json"):
    with server.connect() as connection:
        return connection.exchange("POST", "/score", text.encode(), {"Content-Type": content_type})


def document(**values):
    return "{" + ", ".join(f'"{name}": {value}' for name, value in {**PLAIN, **values}.items()) + "}"


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ({}, 6),
        ({"rows": "[[-0, -0.0, 1e-5], [9007199254740993, 0.1, 1E400]]"}, 6),
        ({"float64": "[[[1], [2]]]", "uint8": "[[0, 255]]"}, 6),
        ({"other": '{"rows": [[1], "]"]}'}, 6),
        ({"float64": "[1, null]"}, 0),
        ({"float64": '["1.5"]'}, 0),
        ({"float64": "[NaN]"}, 0),
        ({"float64": "[]"}, 0),
        ({"float32": "[true]"}, 0),
        ({"int64": "[1.9]"}, 0),
        ({"int32": "[-1e2]"}, 0),
        # Two values for one parameter: the last one counts.
        ({"\\u0072ows": "[[4, 5, 6]]"}, 0),
        ({'float64": [2], "float64': "[3]"}, 0),
        ({'float64": [2], "": 0, "float64': "[3]"}, 0),
    ],
)
def test_both_ways_give_the_same_arrays(shared, values, made):
    server = shared("arrays.py")
    text = document(**values) + PADDING
    straight, general = score(server, text), score(server, text, "application/json; charset=utf-8")
    assert (straight.status, general.status) == (200, 200), str(straight)
    assert straight.json() == {**general.json(), "made": made}
    assert general.json()["made"] == 0


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"rows": "[[1, 2], [3]]"}, "ValueError: setting an array element with a sequence."),
        (
            {"rows": "[[1, 2]]"},
            "ValueError: Invalid input array: array has size 2 on dimension #1, while expected value",
        ),
        ({"rows": "[1, 2, 3]"}, "ValueError: Invalid input array: an array with 2 dimensions is expected"),
        ({"float64": "5"}, "ValueError: Invalid input format: expected an array of items."),
        ({"float64": '[{"a": 1}]'}, "TypeError: float() argument must be a string or a "),
        ({"int64": "[9223372036854775808]"}, "OverflowError: "),
    ],
)
def test_what_is_no_such_array_fails_as_ever(shared, values, error):
    server = shared("arrays.py", "--error_details")
    response = score(server, document(**values) + PADDING)
    assert (response.status, response["x-ms-run-function-failed"]) == (500, "True")
    assert f"\n{error}" in response.json()["traceback"]


def test_errors_of_the_document_are_told_as_ever(shared):
    server = shared("arrays.py")
    refused = score(server, document() + PADDING + "x")
    position = len(document() + PADDING)
    reason = f"Extra data: line 1 column {position + 1} (char {position})"
    expected = {"message": f"POST body could not be decoded as JSON: {reason}"}
    assert (refused.status, refused.json()) == (400, expected)
    text = '{"rows": [[1, 2, 3]]}' + PADDING
    expected = {"message": "A value is not provided for the 'float64' parameter."}
    assert (score(server, text).status, score(server, text).json()) == (400, expected)


def test_small_bodies_go_the_general_way(shared):
    assert score(shared("arrays.py"), document()).json()["made"] == 0


def test_a_large_array_arrives_whole(shared):
    numbers = [number / 7 for number in range(200_000)]
    response = score(shared("arrays.py"), document(float64=json.dumps(numbers)))
    dtype, shape, _, _, content = response.json()["arrays"][0]
    assert (dtype, shape) == ("<f8", [200_000])
    assert list(memoryview(bytes.fromhex(content)).cast("d")) == numbers
