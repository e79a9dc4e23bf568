"""Public: ``create()``, the server as a Flask application in the caller's own process, for tests of
scoring scripts.

This is a second implementation, as WSGI, of the parts of ``src/front`` that a test can see: routes,
ids, error texts and headers (contract sections 5 to 9). The code that workers use converts input
and results. ``tests/e2e/test_parity.py`` compares the replies with those of the server. Queue,
timeouts, size limits, CORS, debugger and request log are missing, because tests of scripts do not
need them. ``print`` and log handlers are not changed. Never runs in a server.
"""

from __future__ import annotations

import atexit
import io
import itertools
import logging
import os
import uuid
from asyncio import CancelledError
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from flask import Flask
from werkzeug import Request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest, MethodNotAllowed, NotFound
from werkzeug.http import HTTP_STATUS_CODES
from werkzeug.wsgi import ClosingIterator

from .. import _core
from ..launch import settings
from ..launch.config_file import ConfigFileError
from ..scripting import loading, outputs, swagger, tracebacks
from ..scripting.failures import INTERNAL_ERROR
from ..scripting.flask_context import FlaskContext, Problem
from ..scripting.script import Script
from .user_script import CannotServe, ScriptLoadError

_HEALTH = {"/": b"Healthy", "/livez": b"Alive", "/readyz": b"Ready"}
_READ_METHODS = ("GET", "HEAD", "OPTIONS")
_MAX_ID = 100
_IDS = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")
_JSON = ("Content-Type", "application/json")
_TEXT = ("Content-Type", "text/html; charset=utf-8")
_FAILED = "x-ms-run-function-failed"
_logger = logging.getLogger("azmlinfsrv")


def create() -> Flask:
    """Load the script that the environment names, call init(), and return an application that
    answers as the server.

    The app root is AML_APP_ROOT, or else the current folder. Each call loads the script again, but
    @rawhttp and inference_schema remember earlier scripts. If the server would not start, logs the
    reason and raises CannotServe, a SystemExit with code 3, with the error as its cause.
    """
    try:
        resolved = settings.load(settings.RawSettings({}, os.environ, os.getcwd()))
        script = loading.load(resolved)
        script.initialize()
        if script.is_async:
            atexit.register(script.close_loop)
        return _Front(script, resolved, swagger.build(script, resolved)).app
    except (ConfigFileError, settings.SettingsError, swagger.SwaggerError, ScriptLoadError) as error:
        _logger.critical("The server cannot start: %s", error)
        raise CannotServe(tracebacks.text_of(error)) from error


class _Reply(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes | Iterator[bytes]
    reason: str | None = None


class _Front:
    """Does the front's part of a request: between the test client and ``FlaskContext``, which does
    the worker's part."""

    def __init__(self, script: Script, given: settings.Settings, documents: Mapping[str, bytes]) -> None:
        self._script, self._settings, self._documents = script, given, documents
        # Other exceptions are not errors of the script: Ctrl-C, and those of a test framework. They
        # are raised.
        answers = (Exception, SystemExit, GeneratorExit, CancelledError)
        self._context = FlaskContext(given, script, answers)
        self.app = self._context.app
        self._inner = self.app.wsgi_app
        self.app.wsgi_app = self  # type: ignore[method-assign]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        request = Request(environ, populate_request=False)
        status, headers, body, reason = self._answer(request)
        if isinstance(body, bytes) and status not in (204, 304):
            headers.append(("Content-Length", str(len(body))))
        start_response(f"{status} {reason or HTTP_STATUS_CODES.get(status, 'Unknown').upper()}", headers)
        if request.method == "HEAD":
            return ClosingIterator((), getattr(body, "close", None))
        return [body] if isinstance(body, bytes) else body

    def _answer(self, request: Request) -> _Reply:
        path, method = request.path, request.method
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return _error(400, BadRequest.description)
        if path not in {*_HEALTH, "/score", "/swagger.json"}:
            return _error(404, NotFound.description)
        if method not in _READ_METHODS and (path, method) != ("/score", "POST"):
            return _error(405, MethodNotAllowed.description)
        ids, problem = _read_ids(request.headers)
        if problem:
            reply = _error(431, problem)
        elif path == "/score":
            reply = self._score(request, ids.get("x-request-id", ""))
        elif method == "OPTIONS":
            reply = _Reply(200, [_TEXT, ("Allow", ", ".join(_READ_METHODS))], b"")
        elif path == "/swagger.json":
            reply = self._swagger(request.args.get("version", "2"))
        else:
            reply = _Reply(200, [_TEXT], _HEALTH[path])
        version = os.environ.get("HTTP_X_MS_SERVER_VERSION", self._settings.server_version)
        added = {"x-ms-server-version": version, **ids} if version else ids
        # Ids that the script has set are replaced. Its TraceId is kept, because the key in ``ids``
        # is not lower case.
        own = [(name, value) for name, value in reply.headers if name.lower() not in ids]
        return reply._replace(headers=[*own, *added.items()])

    def _swagger(self, asked: str) -> _Reply:
        version = {"2.0": "2", "3.0": "3"}.get(asked, asked)
        if version in self._documents:
            return _Reply(200, [_JSON, (_FAILED, "False")], self._documents[version])
        text = f"Swagger version [{asked}] is not valid. Supported versions:"
        if version in swagger.VERSIONS:
            text = f"Swagger version [{version}] is not supported for the scoring script. Supported swagger versions:"
        return _error(404, f"{text} [{', '.join(self._documents)}].")

    def _score(self, request: Request, request_id: str) -> _Reply:
        if self._script.mode != "raw" and request.method in ("HEAD", "OPTIONS"):
            refused = request.method == "HEAD"
            return _error(405, "Method not allowed") if refused else _Reply(200, [_TEXT, (_FAILED, "False")], b"")
        body = request.get_data(cache=False)
        request.environ["wsgi.input"] = io.BytesIO(body)  # so that run() can read the body again
        arguments, problem = _core.arguments(
            self._script,
            method=request.method,
            query=request.query_string,
            headers=[(name, value.strip()) for name, value in request.headers.items()],
            body=body,
        )
        return self._call(request, request_id, arguments, problem)

    def _call(
        self, request: Request, request_id: str, arguments: dict[str, Any] | None, problem: Problem | None
    ) -> _Reply:
        answer = self._context.call_in(self._inner, request.environ, request_id, arguments, problem)
        try:
            return _finish(answer)
        except Exception as exc:  # raised by a stream before its first part
            self._script.internal_failed(exc)
            return _error(500, INTERNAL_ERROR)


def _error(status: int, message: str | None) -> _Reply:
    return _Reply(status, [_JSON, (_FAILED, "False")], outputs.to_json({"message": message}))


def _read_ids(sent: Headers) -> tuple[dict[str, str], str | None]:
    """The ids for the reply by header name, and the fault in the ids of the request, if any
    (contract section 9)."""
    trace = {"TraceId": sent["TraceId"].strip()} if "TraceId" in sent else {}
    request, legacy, client = (sent.get(name, "").strip() for name in _IDS)
    request = request if "x-request-id" in sent else str(uuid.uuid4())
    if len(request) > _MAX_ID:
        return trace, f"x-request-id must not exceed {_MAX_ID} characters"
    if legacy:
        _logger.warning(
            "x-ms-request-id header has been deprecated and will be removed from future versions of the server. "
            "Please use x-ms-client-request-id."
        )
    problem, values = None, [request, legacy or client or request, client or legacy]
    if max(len(legacy), len(client)) > _MAX_ID:
        problem, values = f"x-ms-request-id and x-ms-client-request-id must not exceed {_MAX_ID} characters", [request]
    return {**{name: value for name, value in zip(_IDS, values) if value}, **trace}, problem


def _finish(answer: outputs.Answer) -> _Reply:
    """Add the front's headers to an answer. Exceptions from the first part of a stream are
    raised."""
    headers, body = list(answer.headers), answer.body
    failed: bool | None = answer.origin in (outputs.SCRIPT_ERROR, outputs.TIMEOUT)
    if answer.origin == outputs.RESPONSE:
        failed = True if answer.status >= 500 else None
    if answer.status >= 500:
        headers = [(name, value) for name, value in headers if name.lower() != _FAILED]
    if failed is not None:
        headers.append((_FAILED, str(failed)))
    if answer.seconds is not None:
        headers.append(("x-ms-run-fn-exec-ms", f"{answer.seconds * 1000:.3f}"))
    if answer.location:
        headers.append(("x-ms-run-error-location", answer.location))
    if isinstance(body, bytes):
        return _Reply(answer.status, headers, body, answer.reason)
    try:
        first = list(itertools.islice(body, 1))
    except BaseException:
        body.close()
        raise
    return _Reply(answer.status, headers, ClosingIterator(itertools.chain(first, body), body.close), answer.reason)
