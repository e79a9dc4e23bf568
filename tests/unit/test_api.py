"""The classes scripts import: AMLResponse arguments and AMLRequest/rawhttp (contract sections 7 and
11)."""

from __future__ import annotations

from http import HTTPStatus

import flask
import pytest

from azureml_inference_server_http.api import aml_request
from azureml_inference_server_http.api.aml_response import AMLResponse

FAILED = "x-ms-run-function-failed"


def headers_of(response):
    return [(name, value) for name, value in response.headers if name.lower() != "content-length"]


@pytest.fixture
def unraw(monkeypatch):
    monkeypatch.setattr(aml_request, "_raw_requested", False)


def test_rawhttp_returns_the_function_and_switches_the_process(unraw):
    def run(request):
        return request

    assert not aml_request.raw_requested()
    assert aml_request.rawhttp(run) is run
    assert aml_request.raw_requested()


def test_aml_request_is_a_flask_request():
    assert issubclass(aml_request.AMLRequest, flask.Request)


@pytest.mark.parametrize("first", ["wrapped", "wrapping"])
def test_aml_request_of_a_request_is_that_request_once_more(first):
    sent = {"method": "POST", "data": "a=b", "content_type": "application/x-www-form-urlencoded"}
    with flask.Flask("t").test_request_context("/score?x=1", **sent):
        request = aml_request.AMLRequest(flask.request)
        readers = (flask.request, request) if first == "wrapped" else (request, flask.request)
        assert [reader.get_data() for reader in readers] == [b"a=b"] * 2
        assert [reader.form["a"] for reader in readers] == ["b"] * 2
        assert (request.method, request.args["x"], request.headers["Content-Length"]) == ("POST", "1", "3")
        assert str(request) == "<AMLRequest 'http://localhost/score?x=1' [POST]>"
    assert request.path == "/score"  # without a context too


def test_aml_request_of_an_environ():
    environ = {"REQUEST_METHOD": "PUT", "wsgi.url_scheme": "http", "SERVER_NAME": "h", "SERVER_PORT": "80"}
    assert aml_request.AMLRequest(environ).method == "PUT"


@pytest.mark.parametrize(
    ("arguments", "body", "content_type"),
    [
        (("text", 200), b"text", "text/html; charset=utf-8"),
        ((b"\xff", 200), b"\xff", "text/html; charset=utf-8"),
        (("é", 200), "é".encode(), "text/html; charset=utf-8"),
        ((["a", "b"], 200), b"ab", "text/html; charset=utf-8"),
        (({"a": 1}, 200, {}, True), b'{"a": 1}', "application/json"),
        (("x", 200, {}, True), b'"x"', "application/json"),
        ((None, 200), b"{}", "application/json"),
        ((None, 200, {}, True), b"{}", "application/json"),
        (("x", 200, {"Content-Type": "text/x"}), b"x", "text/x"),
    ],
)
def test_body_and_type(arguments, body, content_type):
    response = AMLResponse(*arguments)
    assert response.get_data() == body
    assert [value for name, value in response.headers if name.lower() == "content-type"] == [content_type]


@pytest.mark.parametrize(
    ("arguments", "types"),
    [
        (("x", 200, {"content-type": "text/x"}), ["text/html; charset=utf-8", "text/x"]),
        (({}, 200, {"Content-Type": "text/x"}, True), ["application/json", "text/x"]),
        ((None, 200, {"Content-Type": "text/x"}), ["application/json", "text/x"]),
    ],
)
def test_two_content_types(arguments, types):
    assert [value for name, value in AMLResponse(*arguments).headers if name.lower() == "content-type"] == types


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (201, "201 CREATED"),
        ("200", "200 OK"),
        ("200 Fine", "200 Fine"),
        (HTTPStatus.NOT_FOUND, "404 NOT FOUND"),
        (None, "200 OK"),
    ],
)
def test_status(status, line):
    assert AMLResponse("x", status).status == line


@pytest.mark.parametrize("status", ["", 200.0])
def test_status_that_fails_in_the_script(status):
    with pytest.raises((ValueError, TypeError, AttributeError)):
        AMLResponse("x", status)


def test_header_values_are_split_at_commas_and_added():
    response = AMLResponse("x", 200, {"A": "1, 2", "b": "x", "c": "", "d": "a,,b"})
    assert headers_of(response) == [
        ("Content-Type", "text/html; charset=utf-8"),
        (FAILED, "False"),
        ("A", "1"),
        ("A", "2"),
        ("b", "x"),
        ("c", ""),
        ("d", "a"),
        ("d", ""),
        ("d", "b"),
    ]


@pytest.mark.parametrize("headers", [{"a": "x\r\ny"}, {"a": 1}, {"a": b"x"}, None, ["a"]])
def test_headers_that_fail_in_the_script(headers):
    with pytest.raises((ValueError, TypeError, AttributeError)):
        AMLResponse("x", 200, headers)


@pytest.mark.parametrize(("value", "text"), [(False, "False"), (True, "True"), (None, "None"), ("maybe", "maybe")])
def test_run_function_failed(value, text):
    assert AMLResponse("x", 200, run_function_failed=value).headers.getlist(FAILED) == [text]


def test_own_failed_header_stands_beside():
    assert AMLResponse("x", 200, {FAILED: "Own"}).headers.getlist(FAILED) == ["False", "Own"]


def test_keywords_and_mimetype_as_scripts_use_them():
    response = AMLResponse(message=b"x", status_code=200, response_headers={}, json_str=False)
    response.mimetype = "image/jpg"
    assert isinstance(response, flask.Response)
    assert response.content_type == "image/jpg"
