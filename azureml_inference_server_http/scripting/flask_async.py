"""Awaits an async run() in a request context of Flask.

Does for one task what Flask's ``wsgi_app`` and ``full_dispatch_request`` do, with a view that is awaited. Functions for
``before_request``, ``after_request`` and ``teardown_request``, and signals, are called as always. WSGI applications
around ``app`` are not, because they cannot wait. Runs in worker processes; ``complete`` in tests of scripts.
"""

from __future__ import annotations

import contextvars
import inspect
import time
from collections.abc import AsyncIterable, Awaitable
from typing import TYPE_CHECKING, Any, Callable

import flask

from . import event_loop, outputs
from .flask_context import Call, FlaskContext, WireResponse, fill_g

if TYPE_CHECKING:
    from .script import Script
    from .wsgi_environ import Request

# Versions of Flask differ in whether the methods for the steps of a request take its context.
_CONTEXT_IS_PASSED = len(inspect.signature(flask.Flask.preprocess_request).parameters) > 1

Run = Callable[[dict[str, Any]], Awaitable[Any]]
Send = Callable[[outputs.Answer], Awaitable[None]]


async def call(
    context: FlaskContext,
    script: Script,
    request: Request,
    kwargs: dict[str, Any] | None,
    run: Run,
    send: Send,
    is_over: Callable[[], bool],
) -> None:
    """Await ``run`` with ``kwargs``, or with the Flask request if they are None, and pass the answer to ``send``.

    The request context is that of the running task until ``send`` has returned, so a stream has it too. ``is_over``
    tells if nobody waits for an answer: then the exception that says so is raised.
    """
    app: Any = context.app
    environ, state = context.environ(request, kwargs)
    pushed = app.request_context(environ)
    passed = (pushed,) if _CONTEXT_IS_PASSED else ()
    error: BaseException | None = None
    pushed.push()
    try:
        try:
            response = await _dispatch(context, script, state, run, passed)
        except BaseException as exc:
            error = exc
            if is_over():
                raise
            response = app.handle_exception(*passed, exc)
        await send(response.answer(state))
    finally:
        # The exception refers to its traceback, and that to this frame.
        failure, state.failure = error, None
        error = None
        pushed.pop(failure)


async def _dispatch(
    context: FlaskContext, script: Script, state: Call, run: Run, passed: tuple[Any, ...]
) -> WireResponse:
    app: Any = context.app
    try:
        flask.request_started.send(app)
        answer = app.preprocess_request(*passed)
        if answer is None:
            fill_g(flask.request.environ, state.request_id)
            result = await _run(context, script, state, run)
            answer = context.response_of(state, _text_stream(result) if isinstance(result, AsyncIterable) else result)
    except Exception as exc:
        answer = app.handle_user_exception(*passed, exc)
    return WireResponse(app.finalize_request(*passed, answer), takes_async=True)


async def _run(context: FlaskContext, script: Script, state: Call, run: Run) -> Any:
    kwargs = context.raw_arguments() if state.kwargs is None else state.kwargs
    started = time.perf_counter()
    try:
        result = await run(kwargs)
        if script.collects_model_data:
            script.collect(kwargs, result)
        return result
    except BaseException as exc:
        state.failure = exc
        raise
    finally:
        state.seconds = time.perf_counter() - started


def complete(script: Script, result: Any) -> Any:
    """Wait for the result of an async run(). A stream becomes one that is not async."""
    loop = script.loop
    result = event_loop.complete(loop, result)
    if isinstance(result, AsyncIterable):
        result = _text_stream(result)
    if isinstance(result, flask.Response) and isinstance(result.response, AsyncIterable):
        stream = outputs.AsyncStream(result.response, _nothing)
        # The request context ends before the stream begins, but its variables can still be read.
        result.response = event_loop.iterate(loop, stream, contextvars.copy_context())
    return result


def _text_stream(parts: AsyncIterable[Any]) -> flask.Response:
    """The response to a run() that is an async generator."""
    name, value = outputs.PLAIN_TEXT
    return flask.Response(parts, headers={name: value})  # type: ignore[arg-type]


def _nothing() -> None:
    pass
