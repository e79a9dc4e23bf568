"""The query string as input of an undecorated run() (contract section 6)."""

from __future__ import annotations

import inspect
import json
import math

import pytest

from azureml_inference_server_http.scripting import inputs


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (b"", "{}"),
        (b"&&", "{}"),
        (b"a=1", '{"a": 1}'),
        (b"a=-1", '{"a": -1}'),
        (b"a=1.50", '{"a": 1.5}'),
        (b"a=1e3", '{"a": 1000.0}'),
        (b"a=01", '{"a": "01"}'),
        (b"a=True", '{"a": "True"}'),
        (b"a=true", '{"a": true}'),
        (b"a={'b':1}", '{"a": "{\'b\':1}"}'),
        (b'a={"b":[1]}', '{"a": {"b": [1]}}'),
        (b"a=%22", '{"a": "\\""}'),
        (b"a=x+y", '{"a": "x y"}'),
        (b"a=x%20y", '{"a": "x y"}'),
        (b"a=+1", '{"a": 1}'),
        (b"a=%2B1", '{"a": "+1"}'),
        (b"a=%091%09", '{"a": 1}'),
        (b"a=%0A1%0A", '{"a": 1}'),
        (b"a=NaN", '{"a": NaN}'),
        (b"a=-Infinity", '{"a": -Infinity}'),
        (b"a=1e400", '{"a": Infinity}'),
        (b"a=%FF%FE", '{"a": "%FF%FE"}'),
        (b"a=%ff", '{"a": "%FF"}'),
        (b"a=%C3", '{"a": "%C3"}'),
        (b"a=%c3x", '{"a": "%C3x"}'),
        (b"a=%ED%A0%80", '{"a": "%ED%A0%80"}'),
        (b"a=%C3%A9", '{"a": "\\u00e9"}'),
        (b"a=%EF%BB%BF1", '{"a": "\\ufeff1"}'),
        (b"a=%", '{"a": "%"}'),
        (b"a=%zz", '{"a": "%zz"}'),
        (b"a=%00", '{"a": "\\u0000"}'),
        (b"a=", '{"a": ""}'),
        (b"a", '{"a": ""}'),
        (b"=1", '{"": 1}'),
        (b"=", '{"": ""}'),
        (b"a=b=c", '{"a": "b=c"}'),
        (b"a=1;b=2", '{"a": "1;b=2"}'),
        (b"a=1&a=x&a=null", '{"a": [1, "x", null]}'),
        (b"a=[1]&a={}", '{"a": [[1], {}]}'),
        (b"b=1&a=2&b=3", '{"b": [1, 3], "a": 2}'),
        (b"%61=1", '{"a": 1}'),
        (b"a[]=1&a[]=2", '{"a[]": [1, 2]}'),
        (b"?a=1", '{"?a": 1}'),
    ],
)
def test_query_input(query, text):
    assert inputs.query_input(query) == text


def test_too_deep_nesting_is_an_internal_error():
    with pytest.raises(RecursionError):
        inputs.query_input(b"a=" + b"[" * 200_000)


def test_number_too_long_for_python_stays_text():
    digits = "1" * 5000
    value = json.loads(inputs.query_input(b"a=" + digits.encode()), parse_int=str)["a"]
    assert value == digits


# Schema-decorated scripts

JSON = "application/json"


def parameters_of(function):
    return tuple(inspect.signature(function).parameters.values())


TWO = parameters_of(lambda a, b=2: None)


def post(body, content_type=JSON, parameters=TWO):
    return inputs.schema_arguments(parameters, "POST", content_type, b"a=9", body)


def refused(*arguments, **keywords):
    with pytest.raises(inputs.InputError) as caught:
        post(*arguments, **keywords)
    assert str(caught.value) == caught.value.message
    return caught.value.status, caught.value.message


@pytest.mark.parametrize(
    "content_type",
    [JSON, "Application/JSON; charset=utf-8", "application/vnd.x+json", "application/json;", " application/json "],
)
def test_json_types(content_type):
    assert post(b'{"a": 1}', content_type) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "text/json", "text/x+json", "application/jsonx", "application/json, text/plain", "+json"],
)
def test_other_types_come_first(content_type):
    assert refused(b"", content_type) == (415, "Expects Content-Type to be application/json")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "POST body is empty. Expecting a JSON dictionary."),
        (b"x", "POST body could not be decoded as JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"a": 1} x', "POST body could not be decoded as JSON: Extra data: line 1 column 10 (char 9)"),
        (b" ", "POST body could not be decoded as JSON: Expecting value: line 1 column 2 (char 1)"),
        (b"[1]", "POST body should be a JSON dictionary."),
        (b"null", "POST body should be a JSON dictionary."),
        (b"{}", "A value is not provided for the 'a' parameter."),
        (b'{"A": 1}', "A value is not provided for the 'a' parameter."),
    ],
)
def test_bodies_that_are_refused(body, message):
    assert refused(body) == (400, message)


def test_first_missing_parameter_in_signature_order():
    assert refused(b'{"c": 1}', parameters=parameters_of(lambda c, b, a: None))[1] == (
        "A value is not provided for the 'b' parameter."
    )


@pytest.mark.parametrize("body", [b'{"a": "\xff"}', b'{"a": ' + b"[" * 200_000])
def test_bodies_python_cannot_hold_are_internal_errors(body):
    with pytest.raises((ValueError, RecursionError)) as caught:
        post(body)
    assert not isinstance(caught.value, (inputs.InputError, json.JSONDecodeError))


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_are_detected(codec):
    assert post('{"a": "é"}'.encode(codec)) == {"a": "é", "b": 2}


def test_values():
    body = b'{"request_headers": 0, "other": 1, "b": null, "a": 1, "a": NaN}'
    arguments = post(body)
    assert list(arguments) == ["a", "b"]
    assert math.isnan(arguments["a"])
    assert arguments["b"] is None


def test_get_takes_the_query_whatever_the_type():
    arguments = inputs.schema_arguments(TWO, "GET", None, b"b=x&a=2&a=3", b"ignored")
    assert arguments == {"a": [2, 3], "b": "x"}
    with pytest.raises(inputs.InputError, match="'a' parameter"):
        inputs.schema_arguments(TWO, "GET", JSON, b"", b"{}")


def test_bind_parameters_of_a_body_parsed_elsewhere():
    assert inputs.bind_parameters(TWO, {"a": 1, "x": 2}) == {"a": 1, "b": 2}
    with pytest.raises(inputs.InputError, match="should be a JSON dictionary"):
        inputs.bind_parameters(TWO, [1])
