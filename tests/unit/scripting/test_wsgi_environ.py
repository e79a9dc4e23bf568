"""The request that a script sees (contract sections 10 and 11)."""

from __future__ import annotations

import json
from types import SimpleNamespace

import flask
import pytest
from flask_calls import SETTINGS, Script, call, request, seen

from azureml_inference_server_http.scripting.flask_context import FlaskContext
from azureml_inference_server_http.scripting.wsgi_environ import build_environ, split_target

# The request


def test_raw_run_gets_the_proxy():
    assert seen(lambda r: (type(r).__name__, isinstance(r, flask.Request))) == ("LocalProxy", True)


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda r: r.method, "POST"),
        (lambda r: r.path, "/score"),
        (lambda r: r.full_path, "/score?a=1&a=%41+b"),
        (lambda r: r.url, "http://h:1/score?a=1&a=A+b"),
        (lambda r: r.base_url, "http://h:1/score"),
        (lambda r: r.host, "h:1"),
        (lambda r: r.args.getlist("a"), ["1", "A b"]),
        (lambda r: r.query_string, b"a=1&a=%41+b"),
        (lambda r: r.data, b'{"x": 1}'),
        (lambda r: r.get_data(), b'{"x": 1}'),
        (lambda r: r.json, {"x": 1}),
        (lambda r: r.stream.read(3), b'{"x'),
        (lambda r: r.content_type, "application/json"),
        (lambda r: r.content_length, 8),
        (lambda r: r.remote_addr, "10.0.0.1"),
        (lambda r: r.headers.get("x-some"), "1,2"),
        (lambda r: "X-With-Underscore" in r.headers, False),
        (lambda r: dict(r.cookies), {"c": "d"}),
        (lambda r: r.endpoint, "main.handle_score"),
        (lambda r: r.blueprint, "main"),
        (lambda r: str(r.url_rule), "/score"),
        (lambda r: r.view_args, {}),
    ],
)
def test_request_attributes(read, value):
    headers = [
        ("host", "h:1"), ("content-type", "application/json"), ("content-length", "8"), ("x-some", "1"),
        ("x-with_underscore", "no"), ("X-Some", "2"), ("Cookie", "c=d"),
    ]  # fmt: skip
    assert seen(read, target="/score?a=1&a=%41+b", headers=headers, body=b'{"x": 1}') == value


def test_files_and_form():
    body = (
        b'--B\r\nContent-Disposition: form-data; name="file[]"; filename="a.txt"\r\n\r\nhello\r\n'
        b'--B\r\nContent-Disposition: form-data; name="n"\r\n\r\n5\r\n--B--\r\n'
    )
    headers = [("Content-Type", "multipart/form-data; boundary=B"), ("Content-Length", str(len(body)))]

    def read(r):
        file = r.files.getlist("file[]")[0]
        return file.filename, file.stream.seek(0), file.read(), r.form["n"]

    assert seen(read, headers=headers, body=body) == ("a.txt", 0, b"hello", "5")


def test_body_without_length_as_from_chunks():
    headers = [("Transfer-Encoding", "chunked")]
    assert seen(lambda r: r.get_data(), headers=headers, body=b"abc") == b"abc"


@pytest.mark.parametrize("target", ["/score", "//score", "/%73core", "http://other:99/score", "/score#f"])
def test_spellings_of_the_route(target):
    assert seen(lambda r: (r.endpoint, r.path, r.host), target=target) == ("main.handle_score", "/score", "h:1")


def test_url_without_host_header():
    assert seen(lambda r: r.url, headers=[]) == "http://0.0.0.0:5001/score"


@pytest.mark.parametrize(
    ("header", "peer", "scheme"),
    [
        (("X-Forwarded-Proto", "https"), "127.0.0.1:5", "https"),
        (("X-Forwarded-Ssl", "on"), "[::1]:5", "https"),
        (("X-Forwarded-Protocol", "ssl"), "127.0.0.1:5", "https"),
        (("X-Forwarded-Proto", "https"), "10.0.0.1:5", "http"),
        (("X-Forwarded-Proto", "http"), "127.0.0.1:5", "http"),
    ],
)
def test_scheme_from_a_proxy_on_this_machine_only(header, peer, scheme):
    assert seen(lambda r: r.scheme, headers=[header], peer=peer) == scheme


@pytest.mark.parametrize(
    ("client", "is_https", "seen_as"),
    [
        ("", None, ("127.0.0.1", "5", "https")),
        ("192.0.2.1:0", None, ("192.0.2.1", "0", "https")),
        ("[2001:db8::1]:4711", True, ("2001:db8::1", "4711", "https")),
        ("192.0.2.1:0", False, ("192.0.2.1", "0", "http")),
    ],
)
def test_the_client_that_a_trusted_proxy_names(client, is_https, seen_as):
    made = request(headers=[("Host", "h"), ("X-Forwarded-Ssl", "on")])
    environ = build_environ(made._replace(sender=("127.0.0.1:5", client, is_https)), {})
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"], environ["wsgi.url_scheme"]) == seen_as


def test_request_headers_of_a_raw_run():
    def run(data, request_headers):
        return request_headers

    headers = [
        ("x-all-caps", "1"),
        ("etag", ""),
        ("content-type", ""),
        ("content-length", "0001"),
        ("DUP", "a"),
        ("dup", "b"),
    ]
    body = call(run, pass_headers=True, headers=headers)[3]
    assert json.loads(body) == {"X-All-Caps": "1", "Etag": "", "Content-Length": "0001", "Dup": "a,b"}


def test_environ():
    environ = build_environ(request("GET", "//score?a=%20#f", [("Host", "h"), ("X-A", "b")], peer="[::1]:88"), {"s": 1})
    assert {key: value for key, value in environ.items() if not key.startswith("wsgi.")} == {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "//score",
        "QUERY_STRING": "a=%20",
        "RAW_URI": "//score?a=%20#f",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "::1",
        "REMOTE_PORT": "88",
        "HTTP_HOST": "h",
        "HTTP_X_A": "b",
        "s": 1,
    }
    assert environ["wsgi.input_terminated"] is True
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.run_once"] is False


@pytest.mark.parametrize(
    ("kind", "count", "multiprocess", "multithread"),
    [
        ("process", 1, False, False),
        ("process", 2, True, False),
        ("thread", 1, False, False),
        ("thread", 2, False, True),
    ],
)
def test_server_variables(kind, count, multiprocess, multithread):
    kept = []
    settings = SimpleNamespace(**{**vars(SETTINGS), "worker_class": kind, "worker_count": count})
    FlaskContext(settings, Script(lambda data: kept.append(data.environ))).call(request(), None, None)
    assert kept[0]["wsgi.multiprocess"] is multiprocess
    assert kept[0]["wsgi.multithread"] is multithread
    assert (kept[0]["SERVER_NAME"], kept[0]["SERVER_PORT"]) == ("0.0.0.0", "5001")
    assert kept[0]["SERVER_SOFTWARE"] == "azmlinfsrv/1.5.1"


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("/a?b?c#d", ("/a", "b?c")),
        ("http://h/a?b", ("/a", "b")),
        ("http://h", ("/", "")),
        ("/?#", ("/", "")),
    ],
)
def test_split_target(target, parts):
    assert split_target(target) == parts
