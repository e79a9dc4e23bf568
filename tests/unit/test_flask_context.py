"""The request a script sees, and answers made inside its context (contract sections 10 and 11)."""

from __future__ import annotations

import gc
import json
import weakref
from types import SimpleNamespace

import flask
import pytest

from azureml_inference_server_http.api.aml_response import AMLResponse
from azureml_inference_server_http.scripting import outputs
from azureml_inference_server_http.scripting.failures import INTERNAL_ERROR, SCRIPT_ERROR
from azureml_inference_server_http.scripting.flask_context import FlaskContext
from azureml_inference_server_http.scripting.wsgi_environ import Request, build_environ, split_target

SETTINGS = SimpleNamespace(
    host="0.0.0.0", port=5001, worker_class="process", worker_count=1, server_version="azmlinfsrv/1.5.1",
    scoring_timeout_ms=400, error_details=False, client_errors=False,
)  # fmt: skip


def request(method="POST", target="/score", headers=(("Host", "h:1"),), body=b"", peer="10.0.0.1:7", request_id="r"):
    return Request(method, target, 1, list(headers), body, peer, request_id)


class Script:
    """A fake of ``script.Script`` with the parts that FlaskContext uses. It records log
    messages."""

    def __init__(self, run, pass_headers=False):
        self.run = run
        self.input_name = "data"
        self.pass_headers = pass_headers
        self.logged = []
        self.collects_model_data = False

    def script_failed(self, exc):
        self.logged.append(("script", exc))
        self.first_frame = exc.__traceback__.tb_frame.f_code.co_name
        return "score.py:1 Error"

    def internal_failed(self, exc):
        self.logged.append(("internal", exc))

    def error_text(self, exc):
        return f"text of {exc}"

    def note_result(self, result):
        """Results are not looked at."""


def context_for(run, pass_headers=False, **settings):
    """A FlaskContext whose script is ``run``; ``logged`` is the script's list."""
    script = Script(run, pass_headers)
    context = FlaskContext(SimpleNamespace(**{**vars(SETTINGS), **settings}), script)
    context.script, context.logged = script, script.logged
    return context


def call(run, kwargs=None, pass_headers=False, **fields):
    """The answer of a raw ``run``, or of one that is called with ``kwargs``."""
    return context_for(run, pass_headers).call(request(**fields), kwargs, None)


def seen(read, **fields):
    """The result of ``read(request)`` inside run()."""
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
    assert answer.seconds > 0
    answer = answer._replace(seconds=None)
    assert answer == (
        200,
        None,
        [("Content-Type", "application/json")],
        b'{"sum": 3, "host": "h:1"}',
        "result",
        None,
        "",
    )
    assert call(lambda a: None, {"a": 1}).body == b"{}"


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS"])
def test_methods_that_reach_run(method):
    assert call(lambda data: data.method, method=method).body == json.dumps(method).encode()


def test_response_result():
    answer = call(lambda data: flask.jsonify(a=1))
    assert (answer.status, json.loads(answer.body), answer.origin) == (200, {"a": 1}, "response")
    assert answer.headers == [("Content-Type", "application/json")]
    assert call(lambda data: flask.redirect("/x")).origin == "response"


def test_absolute_location_uses_the_request():
    def run(data):
        response = flask.redirect("/x")
        response.autocorrect_location_header = True
        return response

    assert ("Location", "http://h:1/x") in call(run).headers


def test_own_reason_and_headers_that_are_also_the_servers():
    own = {"x-request-id": "r", "x-ms-run-function-failed": "False", "TraceId": "t"}
    answer = call(lambda data: AMLResponse("x", "299 Fine", own), headers=[("TraceId", "t")])
    assert (answer.status, answer.reason) == (299, "Fine")
    assert dict(answer.headers).items() >= own.items()


@pytest.mark.parametrize("result", [{"a": 1}, AMLResponse("x", 201)])
def test_after_this_request_changes_any_answer(result):
    def run(data):
        @flask.after_this_request
        def mark(response):
            response.headers["Z"] = "1"
            response.status_code = 202
            return response

        return result

    answer = call(run)
    assert answer.status == 202
    assert ("Z", "1") in answer.headers
    assert answer.origin == ("response" if isinstance(result, flask.Response) else "result")


def test_each_answer_has_the_session_of_its_own_call():
    def run(user):
        flask.session["user"] = user
        return user

    context = context_for(run)
    context.app.secret_key = "k"
    cookies = [
        [value for name, value in context.call(request(), {"user": user}, None).headers if name == "Set-Cookie"]
        for user in ("a", "b")
    ]
    assert [len(each) for each in cookies] == [1, 1]
    assert cookies[0][0].startswith("session=")
    assert cookies[0] != cookies[1]


def test_seconds_are_those_of_run():
    assert call(lambda data: 1).seconds > 0


def test_stream_with_context_and_without():
    def lines():
        yield flask.request.method

    body = call(lambda data: AMLResponse(flask.stream_with_context(lines()), 200)).body
    assert list(body) == [b"POST"]
    body.close()
    body = call(lambda data: AMLResponse(lines(), 200)).body
    with pytest.raises(RuntimeError, match="outside of request context"):
        next(body)
    assert not flask.has_request_context()


def test_request_kept_after_run():
    request_kept = []
    call(lambda data: request_kept.append(data))
    with pytest.raises(RuntimeError, match="outside of request context"):
        request_kept[0].method  # noqa: B018


def test_head_does_not_run_a_stream_but_closes_its_response():
    events = []

    def parts():
        events.append("ran")
        yield "x"

    def run(data):
        response = AMLResponse(parts(), 200, {"Content-Length": "1"})
        response.call_on_close(lambda: events.append("closed"))
        return response

    answer = call(run, method="HEAD")
    assert list(answer.body) == []
    assert ("Content-Length", "1") in answer.headers
    assert events == []
    answer.body.close()
    assert events == ["closed"]


@pytest.mark.parametrize("error", [ZeroDivisionError, TimeoutError, SystemExit])
@pytest.mark.parametrize("body", ["xy", lambda: iter("xy")], ids=["whole", "stream"])
def test_failing_call_on_close_is_logged_and_changes_nothing(body, error, caplog):
    def close():
        raise error("of call_on_close")

    def run(data):
        response = AMLResponse(body() if callable(body) else body, 200)
        response.call_on_close(close)
        return response

    answer = call(run)
    if not isinstance(answer.body, bytes):
        assert list(answer.body) == [b"x", b"y"]
        answer.body.close()
    assert (answer.status, answer.origin) == (200, "response")
    assert "of call_on_close" in caplog.text


# Errors


def message(answer):
    return json.loads(answer.body)["message"]


def test_result_that_cannot_be_rendered_is_an_internal_error():
    context = context_for(lambda data: {"a": {1}})
    answer = context.call(request(), None, None)
    assert (answer.status, message(answer), answer.origin, answer.seconds) == (
        500,
        INTERNAL_ERROR,
        "server_error",
        None,
    )
    [(kind, exc)] = context.logged
    assert (kind, type(exc)) == ("internal", outputs.ResultTypeError)
    assert "$.a: set" in str(exc)
    assert exc.__traceback__ is None  # no frames of Flask or of the server


@pytest.mark.parametrize("result", [lambda: AMLResponse("x", 100), lambda: AMLResponse("x", 200, {"a b": "c"})])
def test_response_that_cannot_be_sent_is_an_internal_error_and_is_closed(result):
    closed = []

    def run(data):
        response = result()
        response.call_on_close(lambda: closed.append(True))
        return response

    answer = call(run)
    assert (answer.status, message(answer), answer.origin) == (500, INTERNAL_ERROR, "server_error")
    assert closed == [True]


def test_failing_after_this_request_is_an_internal_error():
    def run(data):
        flask.after_this_request(lambda response: 1 / 0)
        return 1

    context = context_for(run)
    answer = context.call(request(), None, None)
    assert (answer.status, message(answer), answer.origin) == (500, INTERNAL_ERROR, "server_error")
    assert [(kind, type(exc)) for kind, exc in context.logged] == [("internal", ZeroDivisionError)]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
@pytest.mark.parametrize("after", ["nothing", "a header", "a failure"])
def test_what_run_raises_is_answered(error, after):
    raised = error("x")

    def run(data):
        if after == "a failure":
            flask.after_this_request(lambda response: 1 / 0)
        elif after == "a header":
            flask.after_this_request(lambda response: response.headers.add("Z", "1") or response)
        raise raised

    context = context_for(run)
    answer = context.call(request(), None, None)
    assert (answer.status, message(answer), answer.origin) == (500, SCRIPT_ERROR, "script_error")
    assert (answer.location, answer.seconds) == ("score.py:1 Error", None)
    assert answer.headers == [("Content-Type", "application/json"), *([("Z", "1")] if after == "a header" else [])]
    assert context.logged == [("script", raised)]
    assert context.script.first_frame == "run"


def test_variables_of_a_failed_run_are_given_back_at_once():
    class Input:
        pass

    kept = []

    def run(data):
        large = Input()
        kept.append(weakref.ref(large))
        raise ValueError(large)

    context = context_for(run)
    gc.disable()
    try:
        assert context.call(request(), None, None).status == 500
        context.logged.clear()
        assert kept[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("code", [404, 500])
def test_abort_is_a_script_error(code):
    context = context_for(lambda data: flask.abort(code))
    answer = context.call(request(), None, None)
    assert (answer.status, answer.origin) == (500, "script_error")
    assert [(kind, exc.code) for kind, exc in context.logged] == [("script", code)]


def test_time_out():
    def run(data):
        raise TimeoutError

    assert message(call(run)) == "Scoring timeout after 400 ms"


def test_error_details():
    answer = context_for(lambda data: 1 / 0, error_details=True).call(request(), None, None)
    assert json.loads(answer.body) == {
        "message": SCRIPT_ERROR,
        "error": "ZeroDivisionError: division by zero",
        "location": "score.py:1",
        "traceback": "text of division by zero",
    }


def test_exceptions_that_are_not_answered_pass_through():
    def run(data):
        raise KeyboardInterrupt

    context = FlaskContext(SETTINGS, Script(run), (Exception, SystemExit))
    with pytest.raises(KeyboardInterrupt):
        context.call(request(), None, None)


def test_refused_input_is_answered_without_run():
    context = context_for(lambda data: pytest.fail("run() was called"))
    answer = context.call(request(), None, (415, "no"))
    assert (answer.status, message(answer), answer.origin, context.logged) == (415, "no", "server_error", [])
    problem = RecursionError("too deep")
    answer = context.call(request(), None, problem)
    assert (answer.status, message(answer), answer.origin) == (500, INTERNAL_ERROR, "server_error")
    assert context.logged == [("internal", problem)]


def test_context_works_again_after_an_error():
    answers = iter([ValueError("x"), 5])

    def run(data):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    context = context_for(run)
    assert context.call(request(), None, None).status == 500
    assert context.call(request(), None, None).body == b"5"
    assert not flask.has_request_context()


# Applications around Flask


def around(context, middleware):
    context.app.wsgi_app = middleware(context.app.wsgi_app)
    return context


def test_middleware_that_is_a_generator_and_a_whole_body():
    class Stamp:
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, environ, start_response):
            yield from self.inner(
                environ, lambda status, headers, *_: start_response("203 Own", [*headers, ("Z", "1")])
            )
            yield b"!"

    answer = around(context_for(lambda data: 1), Stamp).call(request(), None, None)
    assert (answer.status, answer.reason, answer.body, answer.origin) == (203, "Own", b"1!", "result")
    assert answer.headers == [("Content-Type", "application/json"), ("Z", "1")]


def test_middleware_around_a_stream_is_closed_with_it():
    closed = []

    class Upper:
        def __init__(self, inner):
            self.inner = inner

        def __call__(self, environ, start_response):
            self.body = self.inner(environ, start_response)
            return self

        def __iter__(self):
            return (part.upper() for part in self.body)

        def close(self):
            closed.append("middleware")
            self.body.close()

    def run(data):
        response = AMLResponse(iter("ab"), 200)
        response.call_on_close(lambda: closed.append("response"))
        return response

    answer = around(context_for(run), Upper).call(request(), None, None)
    assert list(answer.body) == [b"A", b"B"]
    answer.body.close()
    assert closed == ["middleware", "response"]


def test_middleware_that_writes_before_it_returns_its_body():
    def writes(inner):
        def app(environ, start_response):
            start_response("200 OK", [("A", "b")])(b"written ")
            return [b"returned"]

        return app

    answer = around(context_for(lambda data: 1), writes).call(request(), None, None)
    assert answer[:5] == (200, None, [("A", "b")], b"written returned", "response")


@pytest.mark.parametrize(
    ("middleware", "error"),
    [
        (lambda inner: lambda environ, start: 1 / 0, ZeroDivisionError),
        (lambda inner: lambda environ, start: [b"x"], RuntimeError),
        (lambda inner: lambda environ, start: start("999 a\rb", []) and [], outputs.ResultError),
        (lambda inner: lambda environ, start: start("100 Continue", []) and [], outputs.ResultError),
        (lambda inner: lambda environ, start: start("200 OK", [("a b", "c")]) and [], outputs.ResultError),
    ],
)
def test_middleware_that_fails_is_an_internal_error(middleware, error):
    context = around(context_for(lambda data: 1), middleware)
    answer = context.call(request(), None, None)
    assert (answer.status, message(answer), answer.origin) == (500, INTERNAL_ERROR, "server_error")
    assert [(kind, type(exc)) for kind, exc in context.logged] == [("internal", error)]


def test_before_request_may_answer_instead_of_run():
    context = context_for(lambda data: pytest.fail("run() was called"))
    context.app.before_request(lambda: flask.Response("no", 401))
    answer = context.call(request(), None, None)
    assert (answer.status, answer.body, answer.origin, answer.seconds) == (401, b"no", "response", None)
