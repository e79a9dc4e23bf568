"""The Flask side of a request: what a script may read from ``flask.request``, ``g`` and ``current_app``.

Owns a Flask application that no server serves: its one used view calls run(). It exists so that raw scripts get a real
request, so that a script that imported Flask finds what it found under the published server (contract section 11), and
so that monitoring agents, which wrap Flask, see each call as a whole: ``app(environ, start_response)`` with the status,
headers and body that are sent, and the exceptions of run().

Does not own how results become bytes (``outputs``) or which scripts need this (``script``). Imports Flask, so it is
imported only once the script did, or has a line that will. Runs in workers, perhaps in several threads at once, and in
tests of scripts through ``server.create_app``.
"""

from __future__ import annotations

import datetime
import itertools
import os
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Callable, Union

import flask
import werkzeug
from werkzeug.exceptions import InternalServerError
from werkzeug.wsgi import ClosingIterator

from . import outputs
from .settings_table import PROCESS, THREAD
from .wsgi_environ import Request, build_environ, client_ids

if TYPE_CHECKING:
    from .script import Script
    from .settings import Settings

APPLICATION_NAME = "azureml_inference_server_http.server.create_app"
_FOLDER = os.path.dirname(os.path.abspath(__file__))
SCRIPT_ERROR = "An unexpected error occurred in scoring script. Check the logs for more info."
INTERNAL_ERROR = "An unexpected internal error occurred. Check the logs for more info."
# Key of the environ that leads the view to its _Call.
_CALL = "azmlinfsrv.call"
_FAILED = "x-ms-run-function-failed"
_JSON = ("Content-Type", "application/json")
# Files of frames that tell readers of a log nothing.
_FRAMEWORK = tuple(os.path.join(os.path.dirname(str(package.__file__)), "") for package in (flask, werkzeug)) + (
    os.path.join(_FOLDER, ""),
)

# Why run() is not called: status and message for the client, or a fault on this side.
Problem = Union[tuple[int, str], Exception]
Fields = list[tuple[str, str]]


class _Call:
    """One call of the application: what to call run() with, and what came of it. It travels in the environ."""

    def __init__(self, request_id: str, kwargs: dict[str, Any] | None, problem: Problem | None) -> None:
        self.request_id = request_id
        self.kwargs = kwargs
        self.problem = problem
        # Until the view says otherwise: functions that are called before it may answer by a response of their own.
        self.origin = outputs.RESPONSE
        self.seconds: float | None = None
        self.failure: BaseException | None = None
        self.location = ""
        self.sent: _WireResponse | None = None


class FlaskContext:
    """Calls run() by way of one application, ``app``.

    ``answers``: the exceptions of run() that are answered as errors of the script; others pass through.
    """

    def __init__(
        self, settings: Settings, script: Script, answers: tuple[type[BaseException], ...] = (BaseException,)
    ) -> None:
        self._settings = settings
        self._script = script
        self._server = {
            "SERVER_NAME": settings.host,
            "SERVER_PORT": str(settings.port),
            "SERVER_SOFTWARE": settings.server_version,
            "wsgi.multithread": settings.worker_class == THREAD and settings.worker_count > 1,
            "wsgi.multiprocess": settings.worker_class == PROCESS and settings.worker_count > 1,
        }
        self.app = self._build_app(answers)

    def call(self, request: Request, kwargs: dict[str, Any] | None, problem: Problem | None) -> outputs.Answer:
        """Call run() for a request of the front; see ``call_in``."""
        return self.call_in(self.app, build_environ(request, self._server), request.request_id, kwargs, problem)

    def call_in(
        self,
        application: Callable[..., Iterable[Any]],
        environ: dict[str, Any],
        request_id: str,
        kwargs: dict[str, Any] | None,
        problem: Problem | None = None,
    ) -> outputs.Answer:
        """Call run() with ``kwargs``, or with the Flask request of ``environ`` if they are None.

        ``application`` is ``app``, or what it was before somebody stood in front of it. With a ``problem`` run() is not
        called, but monitoring agents see the request and its reply. What run() raises is logged and answered here.
        Raises only what code around the view raises and Flask does not handle: TimeoutError, when the time limit of
        run() ends there, and exceptions that are no ``Exception``.
        """
        environ[_CALL] = call = _Call(request_id, kwargs, problem)
        try:
            answer = _receive(application, environ, call)
            if call.failure is not None:
                # Flask's frame and the exception refer to each other: what run() had in its variables, large inputs
                # among it, would stay until the garbage collector comes by.
                call.failure.__traceback__ = None
            return answer
        except TimeoutError:
            raise
        except Exception as exc:  # of a WSGI middleware
            self._script.internal_failed(_without_leading_frames(exc))
            return outputs.Answer(
                500, None, [_JSON], outputs.to_json({"message": INTERNAL_ERROR}), outputs.SERVER_ERROR
            )
        finally:
            call.failure = None  # its traceback refers back to the call

    def _build_app(self, answers: tuple[type[BaseException], ...]) -> flask.Flask:
        app = _Application(
            answers,
            APPLICATION_NAME,
            root_path=_FOLDER,
            instance_path=os.path.join(_FOLDER, "instance"),
            static_folder="static",
        )
        # Every exception, those of abort() too, goes the way of an unhandled one: got_request_exception, then the
        # handler of 500, while functions of teardown_request get it as it was raised.
        app.config.update(PROPAGATE_EXCEPTIONS=False, TRAP_HTTP_EXCEPTIONS=True)
        app.register_error_handler(500, self._answer_error)
        main = flask.Blueprint("main", APPLICATION_NAME, root_path=_FOLDER)
        # Whoever is in front answers the first two; they are here for url_for and url_map.
        main.add_url_rule("/", "health_probe", _not_served)
        main.add_url_rule("/swagger.json", "get_swagger_specification", _not_served)
        methods = ["GET", "POST", "OPTIONS", "HEAD"]
        main.add_url_rule("/score", "handle_score", self._score, methods=methods, provide_automatic_options=False)
        app.register_blueprint(main)
        return app

    def _score(self) -> flask.Response:
        """The view: runs the script."""
        call = _current_call()
        _fill_g(flask.request.environ, call.request_id)
        if isinstance(call.problem, Exception):
            raise call.problem
        if call.problem is not None:
            call.origin = outputs.SERVER_ERROR
            return _error_response(*call.problem)
        result = self._run(call)
        if isinstance(result, flask.Response):
            outputs.note_response()
            return result
        response = _json_response({} if result is None else result)
        call.origin = outputs.RESULT
        return response

    def _run(self, call: _Call) -> Any:
        kwargs = self._raw_arguments() if call.kwargs is None else call.kwargs
        pid = os.getpid()
        started = time.perf_counter()
        try:
            return self._script.run(**kwargs)
        except BaseException as exc:
            call.failure = exc
            raise
        finally:
            call.seconds = time.perf_counter() - started
            if os.getpid() != pid:  # a child that run() forked must not go on with the server's work
                self._script.end_forked_child(call.failure)

    def _raw_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {self._script.input_name: flask.request}
        if self._script.pass_headers:
            arguments["request_headers"] = dict(flask.request.headers)
        return arguments

    def _answer_error(self, error: InternalServerError) -> flask.Response:
        """Flask's handler of 500: logs the exception and makes the reply of contract section 8."""
        call, exc = _current_call(), error.original_exception
        if exc is None or error is call.failure:  # abort(500) by the script: Flask has yet to treat it as an exception
            raise error
        call.seconds = None
        exc = _without_leading_frames(exc)
        if exc is not call.failure and not isinstance(exc, TimeoutError):
            call.origin = outputs.SERVER_ERROR
            self._script.internal_failed(exc)
            return _error_response(500, INTERNAL_ERROR)
        call.origin = outputs.SCRIPT_ERROR
        call.location = self._script.script_failed(exc)
        content = {"message": SCRIPT_ERROR}
        if isinstance(exc, TimeoutError):
            content = {"message": f"Scoring timeout after {self._settings.scoring_timeout_ms} ms"}
        if self._settings.error_details:
            content["traceback"] = self._script.error_text(exc)
        return _json_response(content, 500)


class _Application(flask.Flask):
    """Flask, except that ``answers`` are exceptions like any other, and that a response which cannot be sent is noticed
    while it still can become an error that everybody around the application sees."""

    def __init__(self, answers: tuple[type[BaseException], ...], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._answers = answers

    # The arguments before the exception depend on Flask's version.
    def full_dispatch_request(self, *arguments: Any) -> Any:
        try:
            return _WireResponse(super().full_dispatch_request(*arguments))
        except Exception:
            raise  # to handle_exception, by Flask
        except self._answers as exc:
            return self.handle_exception(*arguments, exc)

    def handle_exception(self, *arguments: Any) -> Any:
        return _WireResponse(super().handle_exception(*arguments))

    def log_exception(self, *_: Any) -> None:
        """The handler of 500 logs it."""


class _WireResponse:
    """A response of Flask as it goes on the wire: a WSGI application that sends just this.

    Raises ResultError, or what the script's own objects raise, for a response that cannot be sent.
    """

    def __init__(self, response: flask.Response) -> None:
        call, environ = _current_call(), flask.request.environ
        self._close = response.close
        try:
            self.status = response.status
            self.number, self.reason = outputs.status_line(response.status)
            self.own = outputs.wire_headers(response.get_wsgi_headers(environ))
            self.body = outputs.response_body(response, environ["REQUEST_METHOD"])
        except Exception:
            outputs.close(self._close)
            raise
        self.added = _added_fields(call, environ, self.number)
        call.sent = self

    @property
    def headers(self) -> Fields:
        """All headers that the client gets, but those of CORS and of the connection."""
        own = self.own
        if self.number >= 500:
            own = [(name, value) for name, value in own if name.lower() != _FAILED]
        return [*own, *self.added]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(self.status, self.headers)
        return ClosingIterator((self.body,), self._close) if isinstance(self.body, bytes) else self.body


class _Start:
    """``start_response`` of PEP 3333: what the outermost application says."""

    def __init__(self) -> None:
        self.status: str | None = None
        self.headers: Fields = []
        self.written: list[bytes] = []

    def __call__(self, status: str, headers: Fields, exc_info: Any = None) -> Callable[[bytes], None]:
        self.status, self.headers = status, headers
        return self.written.append


def _receive(application: Callable[..., Iterable[Any]], environ: dict[str, Any], call: _Call) -> outputs.Answer:
    """Call the application as a WSGI server does. Its answer is Flask's, or what a middleware has made of that."""
    start = _Start()
    parts = body = application(environ, start)
    closing: Callable[[], object] = getattr(body, "close", None) or _nothing
    try:
        if start.status is None:  # a middleware that is a generator calls Flask when it is asked for the first part
            parts = iter(body)
            parts = itertools.chain(list(itertools.islice(parts, 1)), parts)
        sent = call.sent
        is_stream = isinstance(sent.body, outputs.Stream) if sent else not isinstance(body, (list, tuple))
        if not is_stream:
            read = list(parts)  # before what was written is looked at: only now it is complete
            answer = _answer(call, start, b"".join([*start.written, *read]))
        elif isinstance(parts, outputs.Stream):
            answer = _answer(call, start, parts)
        else:
            answer = _answer(call, start, outputs.Stream(itertools.chain(start.written, parts), closing))
    except BaseException:
        outputs.close(closing)
        raise
    if not is_stream:
        outputs.close(closing)
    return answer


def _answer(call: _Call, start: _Start, body: bytes | outputs.Stream) -> outputs.Answer:
    if start.status is None:
        raise RuntimeError("A WSGI application around the server's did not call start_response")
    sent = call.sent
    if sent and (start.status, start.headers) == (sent.status, sent.headers):
        number, reason, headers = sent.number, sent.reason, sent.own
    else:
        number, reason = outputs.status_line(start.status)
        headers = outputs.wire_headers(_without_added(start.headers, sent))
    if isinstance(body, bytes):
        headers = outputs.without_length(headers)
    return outputs.Answer(number, reason, headers, body, call.origin, call.seconds, call.location)


def _nothing() -> None:
    pass


def _without_added(headers: Fields, sent: _WireResponse | None) -> Fields:
    """The headers without those that the front adds, which ``sent`` only shows to the applications around."""
    headers = list(headers)
    for field in sent.added if sent else ():
        if field in headers:
            headers.remove(field)
    return headers


def _added_fields(call: _Call, environ: dict[str, Any], status: int) -> Fields:
    """What the front adds to this reply (contract sections 7 to 9)."""
    fields = []
    if call.origin == outputs.SCRIPT_ERROR or (call.origin == outputs.RESPONSE and status >= 500):
        fields.append((_FAILED, "True"))
    elif call.origin != outputs.RESPONSE:
        fields.append((_FAILED, "False"))
    if call.seconds is not None:
        fields.append(("x-ms-run-fn-exec-ms", f"{call.seconds * 1000:.3f}"))
    client, legacy = client_ids(environ, call.request_id)
    named = {
        "x-ms-run-error-location": call.location,
        "x-ms-server-version": os.environ.get("HTTP_X_MS_SERVER_VERSION"),
        "x-request-id": call.request_id,
        "x-ms-request-id": legacy,
        "x-ms-client-request-id": client,
        "TraceId": environ.get("HTTP_TRACEID"),
    }
    fields += [(name, value) for name, value in named.items() if value]
    return fields


def _current_call() -> _Call:
    call: _Call | None = flask.request.environ.get(_CALL)
    if call is None:
        raise RuntimeError("The application answers the requests that the server passes to it, and no others")
    return call


def _json_response(content: Any, status: int = 200) -> flask.Response:
    return flask.Response(outputs.to_json(content), status, mimetype="application/json")


def _error_response(status: int, message: str) -> flask.Response:
    return _json_response({"message": message}, status)


def _without_leading_frames(exc: BaseException) -> BaseException:
    """The exception, whose traceback now begins with the first frame outside of the server and of Flask."""
    trace: TracebackType | None = exc.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_FRAMEWORK):
        trace = trace.tb_next
    return exc.with_traceback(trace)


def _not_served() -> str:
    raise NotImplementedError("This URL is answered without calling Python")


def _fill_g(environ: dict[str, Any], request_id: str) -> None:
    client, legacy = client_ids(environ, request_id)
    g: Any = flask.g._get_current_object()  # each use of the proxy costs
    g.api_name = "/score"
    g.request_id = request_id
    g.client_request_id = client
    g.legacy_client_request_id = legacy
    g.start_datetime = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    g.starting_perf_counter = time.perf_counter()
