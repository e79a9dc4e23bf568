"""Answers made inside Flask's context, and what a script finds there (contract section 11)."""

from __future__ import annotations

import json
import threading

import flask
import pytest
from flask_calls import call, context_for, request, seen
from loading import load

from azureml_inference_server_http.api.aml_response import AMLResponse
from azureml_inference_server_http.scripting.flask_context import _current_call

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


def test_threads_that_are_first_at_once_share_one_application(settings, monkeypatch):
    script, found = load(settings), []
    other = threading.Thread(target=lambda: found.append(script._flask()))

    class Slow:
        made = 0

        def __init__(self, *_):
            Slow.made += 1
            if Slow.made == 1:
                other.start()
                other.join(0.2)  # ends only if that thread does not wait for this one

    monkeypatch.setattr("azureml_inference_server_http.scripting.flask_context.FlaskContext", Slow)
    monkeypatch.setattr(script, "_flask_context", None)
    own = script._flask()
    other.join()
    assert found == [own]
    assert Slow.made == 1


# Answers


def test_the_collection_of_model_data_is_no_part_of_the_time_of_run():
    """A process that run() has forked collects nothing either."""
    reached = []
    context = context_for(lambda data: "result")
    context.script.collects_model_data = True
    context.script.collect = lambda arguments, result: reached.append((result, _current_call().seconds is not None))
    assert context.call(request(), {"data": 1}, None).seconds is not None
    assert reached == [("result", True)]


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
