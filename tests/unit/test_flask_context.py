"""The request a script sees, and answers made inside its context (contract sections 10 and 11)."""

from __future__ import annotations

import json
from types import SimpleNamespace

import flask
import pytest

from azureml_inference_server_http import outputs
from azureml_inference_server_http.api.aml_response import AMLResponse
from azureml_inference_server_http.flask_context import FlaskContext, Request, build_environ, split_target

SETTINGS = SimpleNamespace(
    host="0.0.0.0", port=5001, worker_class="process", worker_count=1, server_version="azmlinfsrv/1.5.1"
)


def request(method="POST", target="/score", headers=(("Host", "h:1"),), body=b"", peer="10.0.0.1:7", request_id="r"):
    return Request(method, target, 1, list(headers), body, peer, request_id)


def call(run, kwargs=None, pass_headers=False, **fields):
    """The rendered answer of a raw ``run``, or of one that is called with ``kwargs``."""
    context = FlaskContext(SETTINGS, run, "data", pass_headers)
    return outputs.render(context.call(request(**fields), kwargs), fields.get("method", "POST"))


def seen(read, **fields):
    """What ``read(request)`` gives inside run()."""
    kept = []
    call(lambda data: kept.append(read(data)), **fields)
    return kept[0]


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
    FlaskContext(settings, lambda r: kept.append(r.environ), "r", False).call(request(), None)
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


# g, current_app and friends


@pytest.mark.parametrize(
    ("headers", "client", "legacy"),
    [
        ([], "", "r"),
        ([("x-ms-request-id", "m")], "m", "m"),
        ([("x-ms-client-request-id", "c")], "c", "c"),
        ([("x-ms-client-request-id", "c"), ("x-ms-request-id", "m")], "c", "m"),
    ],
)
def test_g(headers, client, legacy):
    values = seen(lambda r: {name: getattr(flask.g, name) for name in flask.g}, headers=headers)
    assert values.pop("start_datetime").tzinfo is None
    assert isinstance(values.pop("starting_perf_counter"), float)
    assert values == {
        "api_name": "/score", "request_id": "r", "client_request_id": client, "legacy_client_request_id": legacy,
    }  # fmt: skip


def test_application():
    def read(_):
        app = flask.current_app
        rules = {(rule.rule, rule.endpoint, *sorted(rule.methods)) for rule in app.url_map.iter_rules()}
        return app.name, rules, flask.url_for("main.handle_score"), type(flask.session._get_current_object()).__name__

    name, rules, url, session = seen(read)
    assert name == "azureml_inference_server_http.server.create_app"
    assert rules == {
        ("/", "main.health_probe", "GET", "HEAD", "OPTIONS"),
        ("/score", "main.handle_score", "GET", "HEAD", "OPTIONS", "POST"),
        ("/static/<path:filename>", "static", "GET", "HEAD", "OPTIONS"),
        ("/swagger.json", "main.get_swagger_specification", "GET", "HEAD", "OPTIONS"),
    }
    assert url == "/score"
    assert session == "NullSession"


# Answers


def test_plain_result_with_keyword_arguments():
    answer = call(lambda a, b: {"sum": a + b, "host": flask.request.host}, {"a": 1, "b": 2})
    assert answer == (200, None, [("Content-Type", "application/json")], b'{"sum": 3, "host": "h:1"}', False)
    assert call(lambda a: None, {"a": 1})[3] == b"{}"


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_methods_that_reach_run(method):
    assert call(lambda data: data.method, method=method)[3] == json.dumps(method).encode()


def test_response_result():
    status, _, headers, body, is_response = call(lambda data: flask.jsonify(a=1))
    assert (status, json.loads(body), is_response) == (200, {"a": 1}, True)
    assert headers == [("Content-Type", "application/json")]
    assert call(lambda data: flask.redirect("/x"))[4] is True


@pytest.mark.parametrize("result", [{"a": 1}, AMLResponse("x", 201)])
def test_after_this_request_changes_any_answer(result):
    def run(data):
        @flask.after_this_request
        def mark(response):
            response.headers["Z"] = "1"
            response.status_code = 202
            return response

        return result

    status, _, headers, _, is_response = call(run)
    assert status == 202
    assert ("Z", "1") in headers
    assert is_response is isinstance(result, flask.Response)


def test_each_answer_has_the_session_of_its_own_call():
    def run(user):
        flask.session["user"] = user
        return user

    context = FlaskContext(SETTINGS, run, "data", False)
    context.app.secret_key = "k"
    cookies = [
        [value for name, value in outputs.render(context.call(request(), {"user": user}), "POST")[2]
         if name == "Set-Cookie"]
        for user in ("a", "b")
    ]  # fmt: skip
    assert [len(each) for each in cookies] == [1, 1]
    assert cookies[0][0].startswith("session=")
    assert cookies[0] != cookies[1]


def test_failing_after_this_request_is_an_internal_error():
    def run(data):
        flask.after_this_request(lambda response: 1 / 0)
        return 1

    with pytest.raises(ZeroDivisionError):
        call(run)  # from render: the worker loop asks for run()'s own exceptions before
    context = FlaskContext(SETTINGS, run, "data", False)
    assert isinstance(context.call(request(), None), outputs.Prepared)


def test_result_that_cannot_be_rendered_is_an_internal_error():
    context = FlaskContext(SETTINGS, lambda data: {"a": {1}}, "data", False)
    prepared = context.call(request(), None)
    with pytest.raises(TypeError, match=r"\$\.a: set"):
        outputs.render(prepared, "POST")


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, TimeoutError, GeneratorExit])
def test_exceptions_of_run_are_raised_as_they_are(error):
    raised = error("x")

    def run(data):
        flask.after_this_request(lambda response: 1 / 0)
        raise raised

    context = FlaskContext(SETTINGS, run, "data", False)
    with pytest.raises(error) as caught:
        context.call(request(), None)
    assert caught.value is raised


def test_abort_is_a_script_error():
    context = FlaskContext(SETTINGS, lambda data: flask.abort(404), "data", False)
    with pytest.raises(Exception, match="404"):
        context.call(request(), None)


def test_context_works_again_after_an_error():
    answers = iter([ValueError("x"), 5])

    def run(data):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    context = FlaskContext(SETTINGS, run, "data", False)
    with pytest.raises(ValueError, match="x"):
        context.call(request(), None)
    assert outputs.render(context.call(request(), None), "POST")[3] == b"5"
    assert not flask.has_request_context()


def test_seconds_are_those_of_run():
    prepared = FlaskContext(SETTINGS, lambda data: 1, "data", False).call(request(), None)
    assert 0 < prepared.seconds < 1


def test_stream_with_context_and_without():
    def lines():
        yield flask.request.method

    body = call(lambda data: AMLResponse(flask.stream_with_context(lines()), 200))[3]
    assert list(body) == [b"POST"]
    body.close()
    body = call(lambda data: AMLResponse(lines(), 200))[3]
    with pytest.raises(RuntimeError, match="outside of request context"):
        next(body)
    assert not flask.has_request_context()


def test_request_kept_after_run():
    request_kept = []
    call(lambda data: request_kept.append(data))
    with pytest.raises(RuntimeError, match="outside of request context"):
        request_kept[0].method  # noqa: B018
