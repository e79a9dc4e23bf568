"""Results of run() as bytes: JSON, extra types, Flask responses, streams (contract section 7)."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import io
import json
import subprocess
import sys

import flask
import numpy as np
import pandas as pd
import pytest

from azureml_inference_server_http.api.aml_response import AMLResponse
from azureml_inference_server_http.scripting import outputs

FAILED = "x-ms-run-function-failed"
NS = np.datetime64("2026-11-22T07:13:22.000000001", "ns")


class Colour(enum.IntEnum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    when: datetime.date
    inner: object = None


def test_plain_result():
    assert outputs.render({"a": 1}, "POST") == (
        200,
        None,
        [("Content-Type", "application/json")],
        b'{"a": 1}',
        "result",
        None,
        "",
    )


@pytest.mark.parametrize(
    "value",
    [
        0,
        True,
        "é\x7f/<",
        "\ud800",
        [1, (2, 3)],
        {"b": 1, "a": 2},
        {1: 2, 1.5: 3, None: 5},
        {False: 4},
        float("nan"),
        [float("-inf")],
        collections.OrderedDict(a=1),
        collections.Counter("aab"),
        Colour.RED,
        collections.namedtuple("N", "a b")(1, 2),
        np.float64(0.1),
        np.str_("x"),
        10**400,
        "",
        [],
        {},
    ],
)
def test_json_is_that_of_the_standard_library(value):
    assert outputs.render(value, "POST")[3] == json.dumps(value).encode()


def test_none_is_an_empty_object():
    assert outputs.render(None, "POST")[3] == b"{}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.int64(3), "3"),
        (np.float32(0.5), "0.5"),
        (np.longdouble(0.5), "0.5"),
        (np.bool_(True), "true"),
        (np.array([[1, 2], [3, 4]]), "[[1, 2], [3, 4]]"),
        (np.array(7), "7"),
        (np.array([1, None, {"a": np.int8(1)}], dtype=object), '[1, null, {"a": 1}]'),
        ({"p": [np.int64(1), {"q": np.array([np.nan])}]}, '{"p": [1, {"q": [NaN]}]}'),
        ({np.int64(1): np.int64(2), "a": [{np.bool_(True): 1}]}, '{"1": 2, "a": [{"true": 1}]}'),
        (NS, '"2026-11-22T07:13:22.000000001"'),
        (np.array([NS]), '["2026-11-22T07:13:22.000000001"]'),
        (np.array(NS), '"2026-11-22T07:13:22.000000001"'),
        (np.datetime64("NaT", "s"), "null"),
        (np.timedelta64(1500, "ms"), "1.5"),
        (datetime.datetime(2026, 11, 22, 7, 13, tzinfo=datetime.timezone.utc), '"2026-11-22T07:13:00+00:00"'),
        (datetime.date(2026, 11, 22), '"2026-11-22"'),
        (datetime.time(7, 13), '"07:13:00"'),
        (datetime.timedelta(seconds=1.5), "1.5"),
        ({datetime.date(2026, 1, 2): 1}, '{"2026-01-02": 1}'),
        (
            Point(1, datetime.date(2026, 1, 2), [Point(2, None)]),
            '{"x": 1, "when": "2026-01-02", "inner": [{"x": 2, "when": null, "inner": null}]}',
        ),
        (pd.DataFrame({"a": [1, 2], "b": ["x", None]}), '[{"a": 1, "b": "x"}, {"a": 2, "b": %s}]'),
        (pd.Series([1, 2], index=["p", "q"]), "[1, 2]"),
        (pd.Series(pd.to_datetime(["2026-01-02", None])), '["2026-01-02T00:00:00", null]'),
        (pd.Index(["a"]), '["a"]'),
        (pd.Categorical(["a", "b"]), '["a", "b"]'),
        (pd.array([1, None], dtype="Int64"), "[1, null]"),
        (pd.Timestamp("2026-01-02"), '"2026-01-02T00:00:00"'),
        (pd.Timedelta("1s"), "1.0"),
        (pd.Period("2026-01", "M"), '"2026-01"'),
        ({"a": pd.NaT, "b": pd.NA}, '{"a": null, "b": null}'),
        (pd.DataFrame({1: [1]}), '[{"1": 1}]'),
    ],
)
def test_extra_types(value, text):
    if isinstance(value, pd.DataFrame) and "%s" in text:
        text %= json.dumps(value["b"][1])  # None or NaN, as this pandas keeps it
    assert outputs.to_json(value) == text.encode()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"x", "Object of type bytes is not JSON serializable, found at $: bytes"),
        (
            {"predictions": [1, {"a b": decimal.Decimal(1)}]},
            "Object of type Decimal is not JSON serializable, found at $.predictions[1]['a b']: decimal.Decimal",
        ),
        ([1, {2, 3}], "Object of type set is not JSON serializable, found at $[1]: set"),
        ({"a": {(1, 2): 3}}, "Object of type tuple is not JSON serializable, found at $.a, as a key: tuple"),
        ({b"k": 1}, "Object of type bytes is not JSON serializable, found at $, as a key: bytes"),
        (np.array([1j]), "Object of type complex is not JSON serializable, found at $[0]: complex"),
        (Point(1, None, range(3)), "Object of type range is not JSON serializable, found at $.inner: range"),
        ((x for x in ()), "Object of type generator is not JSON serializable, found at $: generator"),
        (Point, "Object of type type is not JSON serializable, found at $: type"),
        (
            [flask.Response("x"), 300],
            "Object of type Response is not JSON serializable, found at $[0]: flask.wrappers.Response",
        ),
    ],
)
def test_what_cannot_be_rendered_is_named_with_its_place(value, message):
    with pytest.raises(TypeError) as caught:
        outputs.render(value, "POST")
    assert str(caught.value) == message


def test_type_error_of_the_scripts_own_object_stays_visible():
    @dataclasses.dataclass
    class Odd:
        x: int = 0

        def __getattribute__(self, name):
            if name == "x":
                raise TypeError("own words")
            return super().__getattribute__(name)

    with pytest.raises(outputs.ResultTypeError, match=r"\$\[1\]: .*Odd") as caught:
        outputs.render([1, Odd.__new__(Odd)], "POST")
    assert str(caught.value.__cause__) == "own words"


def test_circular_and_too_long_numbers_are_errors():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular"):
        outputs.render(loop, "POST")


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from azureml_inference_server_http.scripting import outputs\n"
        "outputs.render([1], 'POST')\n"
        "try: outputs.render([b''], 'POST')\n"
        "except TypeError: pass\n"
        "assert not {'flask', 'werkzeug', 'numpy', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_whole_response():
    status, reason, headers, body, origin, *_ = outputs.render(AMLResponse("x", "201 Fine", {"A": "1,2"}), "POST")
    assert (status, reason, body, origin) == (201, "Fine", b"x", "response")
    assert headers == [("Content-Type", "text/html; charset=utf-8"), (FAILED, "False"), ("A", "1"), ("A", "2")]


def test_standard_reason_is_left_to_the_server():
    assert outputs.render(AMLResponse("x", 404), "POST")[1] is None
    assert outputs.render(flask.Response("x", status=299), "POST")[1] is None


def test_flask_response_has_no_failed_header():
    assert FAILED not in dict(outputs.render(flask.Response("x"), "POST")[2])


@pytest.mark.parametrize(("status", "has_type"), [(204, True), (304, False)])
def test_statuses_without_body(status, has_type):
    for body in ("x", (chunk for chunk in "xy")):
        _, _, headers, rendered, *_ = outputs.render(AMLResponse(body, status, {"A": "b"}), "POST")
        assert rendered == b""
        assert ("A", "b") in headers
        assert ("Content-Type" in dict(headers)) is has_type
        assert "Content-Length" not in dict(headers)


def test_own_content_length_of_a_whole_body_is_dropped():
    headers = outputs.render(AMLResponse("abc", 200, {"Content-Length": "1"}), "POST")[2]
    assert "content-length" not in [name.lower() for name, _ in headers]


def test_hop_by_hop_headers_are_dropped():
    names = ["Connection", "Keep-Alive", "TE", "Transfer-Encoding", "Upgrade", "Proxy-Authenticate", "Trailer"]
    headers = outputs.render(AMLResponse("x", 200, dict.fromkeys(names, "v")), "POST")[2]
    assert [name for name, value in headers if value == "v"] == ["Trailer"]


def test_location_stays_relative():
    with flask.Flask("t").test_request_context("/score"):
        assert ("Location", "/x") in outputs.render(flask.redirect("/x"), "POST")[2]


@pytest.mark.parametrize("headers", [{"a b": "x"}, {"": "x"}, {"é": "x"}, {"a": "x\x01"}, {"a": "\u20ac"}])
def test_headers_that_cannot_be_sent(headers):
    with pytest.raises(outputs.ResultError, match="invalid"):
        outputs.render(AMLResponse("x", 200, headers), "POST")


@pytest.mark.parametrize("status", [99, 1000, 100, True, "abc", 0])
def test_statuses_that_cannot_be_sent(status):
    with pytest.raises(outputs.ResultError, match="status"):
        outputs.render(AMLResponse("x", status), "POST")


def test_reason_that_cannot_be_sent():
    with pytest.raises(outputs.ResultError, match="reason"):
        outputs.render(AMLResponse("x", "200 a\rb"), "POST")


def test_stream_chunks():
    class Chunks:
        def __init__(self):
            self.closed = 0

        def __iter__(self):
            return iter(["a", "", b"", "é", b"\xff", bytearray(b"z")])

        def close(self):
            self.closed += 1

    chunks = Chunks()
    response = AMLResponse(chunks, 200, {"Content-Length": "5"})
    called = []
    response.call_on_close(lambda: called.append(1))
    _, _, headers, body, *_ = outputs.render(response, "POST")
    assert ("Content-Length", "5") in headers
    assert list(body) == [b"a", "é".encode(), b"\xff", b"z"]
    body.close()
    assert (chunks.closed, called) == (1, [1])


def test_generator_is_lazy_and_closed_when_the_client_left():
    events = []

    def generate():
        try:
            for number in range(3):
                events.append(number)
                yield str(number)
        finally:
            events.append("closed")

    body = outputs.render(AMLResponse(generate(), 200), "POST")[3]
    assert events == []
    assert next(body) == b"0"
    body.close()
    assert events == [0, "closed"]


def test_stream_of_wrong_items():
    body = outputs.render(AMLResponse((number for number in [1]), 200), "POST")[3]
    with pytest.raises(TypeError, match="not int"):
        next(body)
    with pytest.raises(TypeError, match="from int"):
        outputs.render(AMLResponse(5, 200), "POST")


def test_dict_message_is_iterated():
    assert outputs.render(AMLResponse({"a": 1, "b": 2}, 200), "POST")[3] == b"ab"


def test_send_file_passes_through():
    app = flask.Flask("t")
    with app.test_request_context("/score"):
        response = flask.send_file(io.BytesIO(b"data"), mimetype="image/png")
        status, _, headers, body, *_ = outputs.render(response, "GET")
    assert status == 200
    assert ("Content-Type", "image/png") in headers
    assert b"".join(body) == b"data"
    body.close()
