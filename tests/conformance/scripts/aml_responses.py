"""Scores by returning an AMLResponse made with the arguments named in the body."""

import io
from http import HTTPStatus

from azureml.contrib.services.aml_response import AMLResponse as R


class Own(R):
    def __init__(self, text):
        super().__init__(text.upper(), 202, {"X-Own": "yes"})


def parts(*items):
    yield from items


def with_headers(**headers):
    return R("x", 200, {name.replace("_", "-"): value for name, value in headers.items()})


def changed(change):
    response = R("body", 200, {"X-A": "1"})
    change(response)
    return response


def set_mimetype(response):
    response.mimetype = "image/jpg"


def set_data(response):
    response.data = b"other data"


def delete_header(response):
    del response.headers["X-A"]


def set_vary(response):
    response.vary.add("Accept")


def add_header(response):
    response.headers.add("X-A", "2")
    response.headers.add("X-A", "3, 4")


CASES = {
    "str": lambda: R("text", 200),
    "bytes": lambda: R(b"\x00\xff\xfe", 200),
    "bytearray": lambda: R(bytearray(b"abc"), 200),
    "empty": lambda: R("", 200),
    "html": lambda: R("<b>ü ☃</b>", 200),
    "json-str": lambda: R({"a": [1, None, "é"]}, 200, json_str=True),
    "json-str-text": lambda: R('{"a": 1}', 200, json_str=True),
    "json-nan": lambda: R([float("nan")], 200, json_str=True),
    "json-unserialisable": lambda: R({1, 2}, 200, json_str=True),
    "none": lambda: R(None, 200),
    "none-json": lambda: R(None, 200, json_str=True),
    "dict": lambda: R({"ab": 1, "cd": 2}, 200),
    "list-of-bytes": lambda: R([b"ab", b"cd"], 200),
    "list-iter": lambda: R(iter(["ab", "cd"]), 200),
    "int": lambda: R(5, 200),
    "status-201": lambda: R("x", 201),
    "status-text": lambda: R("x", "202"),
    "status-text-reason": lambda: R("x", "203 Fine Thing"),
    "status-http": lambda: R("x", HTTPStatus.ACCEPTED),
    "status-none": lambda: R("x", None),
    "status-204": lambda: R("x", 204),
    "status-304": lambda: R("x", 304),
    "status-299": lambda: R("x", 299),
    "status-404": lambda: R("x", 404),
    "status-418": lambda: R("x", 418),
    "status-500": lambda: R("x", 500),
    "status-503": lambda: R("x", 503),
    "status-999": lambda: R("x", 999),
    "status-100": lambda: R("x", 100),
    "status-42": lambda: R("x", 42),
    "status-1000": lambda: R("x", 1000),
    "status-bool": lambda: R("x", True),
    "status-abc": lambda: R("x", "abc"),
    "status-empty": lambda: R("x", ""),
    "status-float": lambda: R("x", 200.0),
    "headers": lambda: with_headers(X_One="1", X_Two="two words"),
    "headers-comma": lambda: with_headers(X_Many="1, 2 ,3"),
    "headers-date": lambda: with_headers(Expires="Wed, 21 Oct 2015 07:28:00 GMT"),
    "headers-content-type": lambda: R("x", 200, {"Content-Type": "image/png"}),
    "headers-content-type-lower": lambda: R("x", 200, {"content-type": "image/png"}),
    "headers-content-type-json": lambda: R({}, 200, {"Content-Type": "image/png"}, True),
    "headers-none": lambda: R("x", 200, None),
    "headers-list": lambda: R("x", 200, [("a", "b")]),
    "headers-int": lambda: with_headers(X_N=5),
    "headers-bytes": lambda: with_headers(X_N=b"5"),
    "headers-newline": lambda: with_headers(X_N="a\r\nb"),
    "headers-control": lambda: with_headers(X_N="a\x01b"),
    "headers-latin": lambda: with_headers(X_N="é"),
    "headers-snowman": lambda: with_headers(X_N="☃"),
    "headers-space-name": lambda: R("x", 200, {"a b": "1"}),
    "headers-empty-name": lambda: R("x", 200, {"": "1"}),
    "headers-non-ascii-name": lambda: R("x", 200, {"é": "1"}),
    "headers-empty-value": lambda: with_headers(X_N=""),
    "headers-own-f": lambda: R("x", 200, {"x-ms-run-function-failed": "mine"}),
    "headers-own-e": lambda: R("x", 200, {"x-ms-run-fn-exec-ms": "mine"}),
    "headers-own-v": lambda: R("x", 200, {"x-ms-server-version": "mine"}),
    "headers-own-ids": lambda: R(
        "x", 200, {"x-request-id": "mine", "x-ms-request-id": "mine", "x-ms-client-request-id": "mine"}
    ),
    "headers-own-trace": lambda: R("x", 200, {"TraceId": "mine"}),
    "headers-hop": lambda: R(
        "x", 200, {"Keep-Alive": "1", "Upgrade": "x", "TE": "y", "Proxy-Authenticate": "z", "X-Y": "1"}
    ),
    "headers-set-cookie": lambda: R("x", 200, {"Set-Cookie": "a=1; Path=/"}),
    "headers-cors": lambda: R("x", 200, {"Access-Control-Allow-Origin": "*"}),
    "trailer": lambda: R("x", 200, {"Trailer": "X-T"}),
    "failed-true": lambda: R("x", 200, run_function_failed=True),
    "failed-none": lambda: R("x", 200, run_function_failed=None),
    "failed-text": lambda: R("x", 200, run_function_failed="maybe"),
    "failed-one": lambda: R("x", 200, run_function_failed=1),
    "failed-500-false": lambda: R("x", 500, run_function_failed=False),
    "positional": lambda: R([1], 200, {"X-P": "p"}, True, True),
    "keywords": lambda: R(message="m", status_code=206, response_headers={"X-K": "k"}, json_str=False),
    "mimetype": lambda: changed(set_mimetype),
    "set-data": lambda: changed(set_data),
    "delete-header": lambda: changed(delete_header),
    "vary": lambda: changed(set_vary),
    "repeated-header": lambda: changed(add_header),
    "subclass": lambda: Own("text"),
    "generator": lambda: R(parts(b"one ", b"", b"two ", b"three"), 200),
    "generator-empty": lambda: R(parts(), 200),
    "generator-str": lambda: R(parts("é ", "☃"), 200),
    "generator-status": lambda: R(parts(b"x"), 206, {"X-S": "s"}),
    "generator-length": lambda: R(parts(b"abc", b"defgh"), 200, {"Content-Length": "8"}),
    "file": lambda: R(io.BytesIO(b"from a file"), 200),
    "same-object-body": lambda: R("x" * 100_000, 200),
}


def init():
    pass


def run(raw_data):
    return CASES[raw_data]()
