"""/score: what run() gets from a request and what its result becomes (contract sections 5 to 7 and
10)."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys

import pytest
from harness import SCRIPTS, eventually, request

import azureml_inference_server_http as package

sys.path.append(str(SCRIPTS))
import evaluate

pytestmark = pytest.mark.any_worker_class

INTERNAL = {"message": "An unexpected internal error occurred. Check the logs for more info."}
NOT_FOUND = {
    "message": "The requested URL was not found on the server. If you entered the URL manually please check your "
    "spelling and try again."
}
NOT_ALLOWED = {"message": "The method is not allowed for the requested URL."}
HTML = "text/html; charset=utf-8"
# Headers that every reply of a route has, errors included.
IDENTITY = ("x-ms-server-version", "x-request-id", "x-ms-request-id")


def assert_identified(response):
    """Check that the headers V, R and M are present (contract section 5)."""
    assert response["x-ms-server-version"] == f"azmlinfsrv/{package.__version__}"
    assert response["x-request-id"] == response["x-ms-request-id"] is not None


# ---- Input of an undecorated run()


@pytest.mark.parametrize(
    ("body", "content_type", "received"),
    [
        (b'{"a": 1}', "application/json", '{"a": 1}'),
        (b"not JSON at all", "application/json", "not JSON at all"),
        (b"", "application/json", ""),
        (b"no type", None, "no type"),
        (b"\xef\xbb\xbfx", "text/plain", "\ufeffx"),
        ("grüße 🎈\0".encode(), "text/plain; charset=latin-1", "grüße 🎈\0"),
        (b"a=1&b=%20", "application/x-www-form-urlencoded", "a=1&b=%20"),
        (b"a=1", "APPLICATION/X-WWW-FORM-URLENCODED; charset=utf-8", "a=1"),
        (b"--x\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", ""),
        (b"\xff\xfe", "multipart/form-data; boundary=x", ""),
        (b"--x", "multipart/form-data", "--x"),
    ],
)
def test_a_post_body_arrives_as_text(shared, body, content_type, received):
    server = shared("echo.py")
    headers = {} if content_type is None else {"Content-Type": content_type}
    with server.connect() as connection:
        response = connection.exchange("POST", "/score", body, headers)
    assert (response.status, response.json()) == (200, received)


def test_a_large_body_arrives_whole(shared):
    body = "".join(map(str, range(500_000)))
    assert shared("echo.py").score(body).json() == body


def test_raw_bodies_of_any_size_arrive_as_they_were_sent(shared):
    server = shared("raw_digest.py")
    # Bodies of 256 KiB or more reach worker processes through shared memory.
    for size in (0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 5_000_000, 3):
        body = random.Random(size).randbytes(size)
        assert server.score(body).json() == hashlib.sha256(body).hexdigest(), size


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", "can't decode byte 0xff in position 0: invalid start byte"),
        (b"ab\xc3(", "can't decode byte 0xc3 in position 2: invalid continuation byte"),
        (b"abc\xe2\x82", "can't decode bytes in position 3-4: unexpected end of data"),
    ],
)
def test_a_body_that_is_not_utf8_is_refused(shared, body, reason):
    response = shared("echo.py").score(body)
    expected = {"message": f"Input cannot be decoded as UTF-8: 'utf-8' codec {reason}"}
    assert (response.status, response.json()) == (400, expected)
    assert response["x-ms-run-function-failed"] == "False"
    assert response["x-ms-run-fn-exec-ms"] is None
    assert_identified(response)


@pytest.mark.parametrize(
    ("query", "received"),
    [
        ("", "{}"),
        ("?", "{}"),
        ("?&&", "{}"),
        ("?a=1&b=-1.50&c=1e3", '{"a": 1, "b": -1.5, "c": 1000.0}'),
        ("?a=01&b=True&c=%22", '{"a": "01", "b": "True", "c": "\\""}'),
        ("?a=NaN&b=-Infinity&c=1e400", '{"a": NaN, "b": -Infinity, "c": Infinity}'),
        ("?a=&b&=1", '{"a": "", "b": "", "": 1}'),
        ("?b=1&a=x&b=null&b=%5B%5D", '{"b": [1, null, []], "a": "x"}'),
        ("?a=x+y&b=x%20y&c=+1&d=%0A1%0A", '{"a": "x y", "b": "x y", "c": 1, "d": 1}'),
        ("?a=%FF%FE&b=%C3&c=%ED%A0%80", '{"a": "%FF%FE", "b": "%C3", "c": "%ED%A0%80"}'),
        ("?a=%&b=%zz&c=%C3%BC", '{"a": "%", "b": "%zz", "c": "\\u00fc"}'),
        ("?a=1;b=2&%61=2&a[]=1", '{"a": ["1;b=2", 2], "a[]": 1}'),
    ],
)
def test_a_get_query_arrives_as_json_text(shared, query, received):
    response = shared("echo.py").get(f"/score{query}")
    assert (response.status, response.json()) == (200, received)


def test_a_get_body_is_ignored(shared):
    with shared("echo.py").connect() as connection:
        assert connection.exchange("GET", "/score?a=1", b"body").json() == '{"a": 1}'
        assert connection.exchange("GET", "/score?a=2").json() == '{"a": 2}'


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="CPython 3.14 reads JSON of any depth that fits into a target")
def test_a_query_that_nests_too_deep_is_an_internal_error(shared):
    response = shared("echo.py").get("/score?a=" + "[" * 60_000)
    assert (response.status, response.json()) == (500, INTERNAL)


# ---- Plain results


@pytest.mark.parametrize(
    "expression",
    [
        "'text'",
        r"'\u2028\x7f\x00\x1f\b\f\n\r\t\"\\/<é🎈'",
        r"'\ud800'",
        r"{'\udfff': '\ud83c'}",
        "0",
        "-0.0",
        "1e16",
        "123456789012345680.0",
        "1e-7",
        "0.1 + 0.2",
        "5e-324",
        "1.7976931348623157e308",
        "[float('nan'), float('inf'), float('-inf')]",
        "10 ** 30",
        "[2 ** 63 - 1, 2 ** 63, -2 ** 63, -2 ** 63 - 1]",
        "[True, False, None]",
        "(1, (2, []), {})",
        "{1: 1, 1.5: 2, True: 3, None: 4, float('nan'): 5, float('inf'): 6}",
        "{'1': 1, 1: 2}",
        "{'b': 1, 'a': 2}",
        "Pair(1, 2)",
        "collections.OrderedDict(b=1, a=2)",
        "collections.Counter('aab')",
        "[Number.TWO, {Number.TWO: Number.TWO}]",
        "Text('sub')",
        "nested(90)",
        "nested(150)",
        "'x' * 300000",
        "list(range(20000))",
    ],
)
def test_a_result_is_what_json_dumps_writes(shared, expression):
    response = shared("evaluate.py").score(expression)
    expected = json.dumps(eval(expression, vars(evaluate))).encode()
    assert (response.status, response.body) == (200, expected)
    assert response["content-type"] == "application/json"
    assert response["x-ms-run-function-failed"] == "False"
    assert re.fullmatch(r"\d+\.\d{3}", response["x-ms-run-fn-exec-ms"])
    assert_identified(response)


def test_none_is_an_empty_object(shared):
    assert shared("evaluate.py").score("None").body == b"{}"


@pytest.mark.parametrize(
    ("expression", "body"),
    [
        ("datetime.datetime(2026, 1, 2, 3, 4, 5)", b'"2026-01-02T03:04:05"'),
        ("{'when': [datetime.date(2026, 1, 2)]}", b'{"when": ["2026-01-02"]}'),
        ("[Point(1, 2.5)]", b'[{"x": 1, "y": 2.5}]'),
    ],
)
def test_dates_and_dataclasses_render(shared, expression, body):
    response = shared("evaluate.py").score(expression)
    assert (response.status, response.body) == (200, body)


@pytest.mark.parametrize(
    ("expression", "named"),
    [
        ("b'bytes'", "bytes"),
        ("{1, 2}", "set"),
        ("(x for x in 'a')", "generator"),
        ("{'deep': [decimal.Decimal(1)]}", "Decimal"),
        ("Color.RED", "Color"),
        ("1j", "complex"),
        ("{(1, 2): 3}", "tuple"),
        ("circle()", "Circular reference"),
        ("nested(100000)", "RecursionError"),
        ("coroutine()", "coroutine"),
    ],
)
def test_a_result_that_cannot_be_rendered_is_an_internal_error(shared, expression, named):
    server = shared("evaluate.py")
    before = len(server.records(level="E"))
    response = server.score(expression)
    assert (response.status, response.json()) == (500, INTERNAL)
    assert response["x-ms-run-function-failed"] == "False"
    assert response["x-ms-run-fn-exec-ms"] is None
    assert_identified(response)
    # Under Wine the line may come after the reply.
    (record,) = eventually(lambda: server.records(level="E")[before:], "the record of the error")
    assert record.message.startswith("Encountered Exception: ")
    assert named in record.text


def test_a_result_that_cannot_be_rendered_is_logged_with_a_traceback(start):
    server = start("evaluate.py")
    server.score("b'bytes'")
    (record,) = server.records(level="E")
    assert record.message == "Encountered Exception: Traceback (most recent call last):"
    assert "TypeError: Object of type bytes is not JSON serializable" in record.text


# ---- Responses


@pytest.mark.parametrize(
    ("expression", "status", "content_type", "body", "failed"),
    [
        ("AMLResponse('text', 201)", 201, HTML, b"text", "False"),
        ("AMLResponse(b'\\xff', 200)", 200, HTML, b"\xff", "False"),
        ("AMLResponse({'a': None}, 200, json_str=True)", 200, "application/json", b'{"a": null}', "False"),
        ("AMLResponse(None, 202)", 202, "application/json", b"{}", "False"),
        ("AMLResponse('', 200, run_function_failed=True)", 200, HTML, b"", "True"),
        ("AMLResponse('', 200, run_function_failed='maybe')", 200, HTML, b"", "maybe"),
        ("AMLResponse('x', 503)", 503, HTML, b"x", "True"),
        ("AMLResponse('x', '299')", 299, HTML, b"x", "False"),
        ("flask.Response('x', 200)", 200, HTML, b"x", None),
        ("flask.Response('x', 500)", 500, HTML, b"x", "True"),
        ("flask.jsonify(b=1, a=2)", 200, "application/json", b'{"a":2,"b":1}\n', None),
        ("flask.Response(b'\\x00\\x01', mimetype='image/png')", 200, "image/png", b"\x00\x01", None),
    ],
)
def test_a_response_is_sent_as_it_is(shared, expression, status, content_type, body, failed):
    response = shared("respond.py").score(expression)
    assert (response.status, response["content-type"], response.body) == (status, content_type, body)
    assert response["x-ms-run-function-failed"] == failed
    assert response["content-length"] == str(len(body))
    assert re.fullmatch(r"\d+\.\d{3}", response["x-ms-run-fn-exec-ms"])
    assert_identified(response)


def test_an_iterable_is_sent_item_by_item(shared):
    assert shared("respond.py").score("AMLResponse({'a': 1, 'b': 2}, 200)").body == b"ab"
    assert shared("respond.py").score("AMLResponse(['a', b'b'], 200)").body == b"ab"


def test_header_values_are_split_at_commas(shared):
    response = shared("respond.py").score("AMLResponse('', 200, {'X-List': '1, 2', 'X-One': 'a'})")
    assert (response.values("x-list"), response["x-one"]) == (["1", "2"], "a")


def test_own_ids_are_overwritten_and_own_version_is_added(shared):
    expression = "AMLResponse('', 200, {'x-request-id': 'own', 'x-ms-server-version': 'own'})"
    response = shared("respond.py").score(expression, x_request_id="sent")
    assert response["x-request-id"] == "sent"
    assert response.values("x-ms-server-version") == ["own", f"azmlinfsrv/{package.__version__}"]


def test_hop_by_hop_headers_of_a_response_are_dropped(shared):
    expression = (
        "AMLResponse('x', 200, {'Connection': 'close', 'Keep-Alive': '1', 'Transfer-Encoding': 'gzip', 'X-Kept': 'y'})"
    )
    with shared("respond.py").connect() as connection:
        response = connection.exchange("POST", "/score", expression.encode())
        assert (response["connection"], response["keep-alive"], response["transfer-encoding"]) == (None, None, None)
        assert (response["x-kept"], response.body) == ("y", b"x")
        assert connection.exchange("POST", "/score", b"'next'").status == 200


def test_cookies_are_separate_headers(shared):
    expression = "(r := flask.Response('x'), r.set_cookie('a', '1'), r.set_cookie('b', '2'))[0]"
    assert shared("respond.py").score(expression).values("set-cookie") == ["a=1; Path=/", "b=2; Path=/"]


def test_a_redirect_stays_relative(shared):
    response = shared("respond.py").score("flask.redirect('/there')")
    assert (response.status, response["location"]) == (302, "/there")


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(shared, status):
    with shared("respond.py").connect() as connection:
        response = connection.exchange("POST", "/score", f"AMLResponse('dropped', {status})".encode())
        assert (response.status, response["transfer-encoding"]) == (status, None)
        assert response["content-length"] in (None, "0")
        assert connection.exchange("POST", "/score", b"'next'").json() == "next"


@pytest.mark.parametrize(
    "expression",
    [
        "AMLResponse('x', 99)",
        "AMLResponse('x', 100)",
        "AMLResponse('x', 1000)",
        "AMLResponse(5, 200)",
        "AMLResponse('x', 200, {'a b': 'c'})",
        "AMLResponse('x', 200, {'X-A': 'b\\x01'})",
        "AMLResponse('x', 200, {'X-A': '\\u20ac'})",
        "[AMLResponse('x', 200)]",
    ],
)
def test_a_response_that_cannot_be_sent_is_an_internal_error(shared, expression):
    response = shared("respond.py").score(expression)
    assert (response.status, response.json()) == (500, INTERNAL)
    assert response["x-ms-run-function-failed"] == "False"


def test_the_version_header_is_read_at_each_reply(start):
    server = start("version.py")
    assert server.score("mine/1")["x-ms-server-version"] == "mine/1"
    assert server.score("")["x-ms-server-version"] is None


# ---- Methods and routes


def test_options_is_answered_without_the_script(shared):
    server = shared("echo.py")
    response = server.request("OPTIONS", "/score")
    assert (response.status, response["content-type"], response.body) == (200, HTML, b"")
    assert (response["x-ms-run-function-failed"], response["allow"]) == ("False", None)
    assert response["x-ms-run-fn-exec-ms"] is None
    assert_identified(response)


def test_head_is_refused_with_the_length_of_its_message(shared):
    with shared("echo.py").connect() as connection:
        response = connection.exchange("HEAD", "/score")
        assert (response.status, response["content-length"]) == (405, "33")
        assert (response["content-type"], response["x-ms-run-function-failed"]) == ("application/json", "False")
        assert_identified(response)
        assert connection.exchange("GET", "/score").status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "FOO"])
def test_other_methods_are_refused(shared, method):
    response = shared("echo.py").request(method, "/score", b"body")
    assert (response.status, response.json()) == (405, NOT_ALLOWED)
    assert response["x-ms-run-function-failed"] == "False"
    assert [response[name] for name in IDENTITY] == [None] * 3


@pytest.mark.parametrize("path", ["/score/", "/SCORE", "/score%2F", "/./score", "/favicon.ico", "/score/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_other_paths_are_not_found(shared, path, method):
    response = shared("echo.py").request(method, path)
    assert (response.status, response.json()) == (404, NOT_FOUND)
    assert len(response.body) == 135
    assert response["x-ms-run-function-failed"] == "False"
    assert [response[name] for name in IDENTITY] == [None] * 3


@pytest.mark.parametrize("target", ["//score", "/%73core", "http://elsewhere/score", "/score?x=1#fragment"])
def test_other_spellings_of_the_path_reach_it(shared, target):
    with shared("echo.py").connect() as connection:
        response = connection.send(request("POST", target, b"x")).read()
    assert (response.status, response.json()) == (200, "x")


def test_a_reply_names_the_server_and_the_date(shared):
    response = shared("echo.py").score("x")
    assert response["server"]
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", response["date"])
    assert response.reason == "OK"
