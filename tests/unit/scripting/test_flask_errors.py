"""Failures inside the Flask application, and applications around it (contract sections 8 and 11)."""

from __future__ import annotations

import gc
import json
import weakref

import flask
import pytest
from flask_calls import SETTINGS, Script, call, context_for, message, request

from azureml_inference_server_http.api.aml_response import AMLResponse
from azureml_inference_server_http.scripting import outputs
from azureml_inference_server_http.scripting.failures import INTERNAL_ERROR, SCRIPT_ERROR
from azureml_inference_server_http.scripting.flask_context import FlaskContext

# Errors


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
