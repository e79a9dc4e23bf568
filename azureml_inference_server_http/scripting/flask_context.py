"""Calls run() through a Flask application, so that scripts and monitoring agents find Flask as they
expect it.

Owns that application. No HTTP server serves it: the worker calls it as a WSGI server would, and its
view calls run(). Three things need it. Raw scripts get a real Flask request. A script that uses
``flask.request``, ``g`` or ``current_app`` finds there what the published server provides (contract
section 11). Monitoring agents wrap Flask, and see each call as a whole: ``app(environ,
start_response)``, the exceptions of run(), and the status, headers and body that are sent.

``outputs`` makes bytes of results, and ``script`` decides which scripts are called this way. This
module imports Flask, so it must be imported only if the script has imported Flask or contains an
import of it. Runs in workers, perhaps in several threads at once, and in tests of scripts
(``server.create_app``).

One file of more than 400 lines, because application, view and answer share the record of one call.
"""

from __future__ import annotations

import datetime
import itertools
import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Union

import flask
import werkzeug
from werkzeug.exceptions import InternalServerError
from werkzeug.wsgi import ClosingIterator

from ..launch.settings_table import PROCESS, THREAD
from . import failures, outputs, tracebacks
from .wsgi_environ import Request, build_environ, client_ids

if TYPE_CHECKING:
    from ..launch.settings import Settings
    from .script import Script

APPLICATION_NAME = "azureml_inference_server_http.server.create_app"
_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The key under which the environ holds the Call, for the view.
_CALL = "azmlinfsrv.call"
_FAILED = "x-ms-run-function-failed"
_JSON = ("Content-Type", "application/json")
# Folders of Flask, Werkzeug and this server. Their frames are left out of tracebacks, because they
# do not help a user to find a fault in the script.
_FRAMEWORK = tuple(os.path.join(os.path.dirname(str(package.__file__)), "") for package in (flask, werkzeug)) + (
    os.path.join(_FOLDER, ""),
)

# The reason why run() cannot be called: status and message for the client, or an error of the
# server itself.
Problem = Union[tuple[int, str], Exception]
Fields = list[tuple[str, str]]


class Call:
    """One call of the application: the arguments of run(), and its result. The environ carries it
    to the view."""

    def __init__(
        self, request_id: str, kwargs: dict[str, Any] | None, problem: Problem | None, asked: Any = None
    ) -> None:
        self.request_id = request_id
        self.kwargs = kwargs
        self.problem = problem
        self.asked = asked
        # The view changes this. It begins with RESPONSE, because a ``before_request`` function may
        # answer with a response of its own, and then the view is not called.
        self.origin = outputs.RESPONSE
        self.seconds: float | None = None
        self.failure: BaseException | None = None
        self.location = ""
        self.sent: WireResponse | None = None


class FlaskContext:
    """Calls run() through one Flask application, ``app``.

    ``answers``: the types of exceptions from run() that get the reply for a script error. Others
    are raised again.
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
            "wsgi.multithread": (settings.worker_count if settings.worker_class == THREAD else settings.worker_threads)
            > 1,
            "wsgi.multiprocess": settings.worker_class == PROCESS and settings.worker_count > 1,
        }
        self.app = self._build_app(answers)

    def call(self, request: Request, kwargs: dict[str, Any] | None, problem: Problem | None) -> outputs.Answer:
        """Call run() for a request that the front has sent; see ``call_in``."""
        return self.call_in(
            self.app, build_environ(request, self._server), request.request_id, kwargs, problem, request.asked
        )

    def environ(self, request: Request, kwargs: dict[str, Any] | None) -> tuple[dict[str, Any], Call]:
        """The WSGI environ of a request, and the call that it carries; for ``flask_async``."""
        environ = build_environ(request, self._server)
        environ[_CALL] = call = Call(request.request_id, kwargs, None, request.asked)
        return environ, call

    def call_in(
        self,
        application: Callable[..., Iterable[Any]],
        environ: dict[str, Any],
        request_id: str,
        kwargs: dict[str, Any] | None,
        problem: Problem | None = None,
        asked: Any = None,
    ) -> outputs.Answer:
        """Call run() with ``kwargs``, or with the Flask request of ``environ`` if they are None.

        ``application`` is ``app``, or ``app`` wrapped by other WSGI applications. With a
        ``problem`` run() is not called, but monitoring agents still see the request and its reply.
        Exceptions of run() are logged, and the answer is the reply for them. Code around the view
        may raise two kinds of exceptions that are not answered here but raised: TimeoutError, if
        the time limit of run() ends in that code, and those that are no ``Exception``.
        """
        environ[_CALL] = call = Call(request_id, kwargs, problem, asked)
        try:
            answer = _receive(application, environ, call)
            if call.failure is not None:
                # A frame of Flask refers to the exception, and the exception's traceback to that
                # frame. Without this line the variables of run(), perhaps large inputs, would stay
                # in memory until the garbage collector runs.
                call.failure.__traceback__ = None
            return answer
        except TimeoutError:
            raise
        except Exception as exc:  # raised by a WSGI application around ``app``
            self._script.internal_failed(_shortened(exc))
            return outputs.Answer(
                500, None, [_JSON], outputs.to_json({"message": failures.INTERNAL_ERROR}), outputs.SERVER_ERROR
            )
        finally:
            call.failure = None  # breaks the cycle: the traceback of the exception refers to this call

    def _build_app(self, answers: tuple[type[BaseException], ...]) -> flask.Flask:
        app = _Application(
            answers,
            APPLICATION_NAME,
            root_path=_FOLDER,
            instance_path=os.path.join(_FOLDER, "instance"),
            static_folder="static",
        )
        # With these options Flask treats every exception as unhandled, those of abort() too: it
        # sends the signal got_request_exception, calls the handler for 500, and passes the original
        # exception to teardown_request.
        app.config.update(PROPAGATE_EXCEPTIONS=False, TRAP_HTTP_EXCEPTIONS=True)
        app.register_error_handler(500, self._answer_error)
        main = flask.Blueprint("main", APPLICATION_NAME, root_path=_FOLDER)
        # The front answers these two routes itself. They are here so that scripts find them in
        # url_for and url_map.
        main.add_url_rule("/", "health_probe", _not_served)
        main.add_url_rule("/swagger.json", "get_swagger_specification", _not_served)
        methods = ["GET", "POST", "OPTIONS", "HEAD"]
        main.add_url_rule("/score", "handle_score", self._score, methods=methods, provide_automatic_options=False)
        if self._settings.serves_v2:
            for number, version in enumerate(("", "/versions/<version>")):
                path = f"/v2/models/<model>{version}/infer"
                main.add_url_rule(path, f"handle_infer_{number}", self._score, methods=["POST"])
        app.register_blueprint(main)
        return app

    def _score(self, **_: str) -> flask.Response:
        """The view of /score, and of requests with tensors: calls run()."""
        call = _current_call()
        fill_g(flask.request.environ, call.request_id)
        if isinstance(call.problem, Exception):
            raise call.problem
        if call.problem is not None:
            call.origin = outputs.SERVER_ERROR
            return _error_response(*call.problem)
        return self.response_of(call, self._run(call))

    def response_of(self, call: Call, result: Any) -> flask.Response:
        """The response to a request for which run() has returned ``result``."""
        if isinstance(result, flask.Response):
            outputs.note_response()
            return result
        if call.asked is not None:
            from .inference_model import whole  # imported here, because it needs numpy

            answer = whole(self._script.render_tensors(result, call.asked))
            call.origin = answer.origin
            return flask.Response(answer.body, answer.status, answer.headers)
        response = _json_response({} if result is None else result)
        self._script.note_result(result)
        call.origin = outputs.RESULT
        return response

    def _run(self, call: Call) -> Any:
        kwargs = self.raw_arguments() if call.kwargs is None else call.kwargs
        pid = os.getpid()
        started = time.perf_counter()
        try:
            result = self._script.run(**kwargs)
            if self._script.is_async:
                from . import flask_async  # imported here, because most scripts never need it

                result = flask_async.complete(self._script, result)
        except BaseException as exc:
            call.failure = exc
            raise
        finally:
            call.seconds = time.perf_counter() - started
            if os.getpid() != pid:  # run() forked this process and returned in it: it must not serve requests
                self._script.end_forked_child(call.failure)
        if self._script.collects_model_data:
            self._script.collect(kwargs, result)
        return result

    def raw_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {self._script.input_name: flask.request}
        if self._script.pass_headers:
            arguments["request_headers"] = dict(flask.request.headers)
        return arguments

    def _answer_error(self, error: InternalServerError) -> flask.Response:
        """Flask's handler for 500: logs the exception and makes the reply of contract section 8."""
        call, exc = _current_call(), error.original_exception
        if exc is None or error is call.failure:
            # The script has called abort(500). Raised again, so that Flask treats it as an
            # unhandled exception.
            raise error
        call.seconds = None
        exc = _shortened(exc)
        accept = flask.request.headers.get("Accept", "")
        if exc is not call.failure and not isinstance(exc, TimeoutError):
            answer = failures.of_server(self._script, self._settings, exc, accept)
        else:
            # Not get_data(): the script may have read the stream.
            read = getattr(flask.request.environ["wsgi.input"], "getvalue", None)
            answer = failures.of_run(self._script, self._settings, exc, accept, read() if read else None)
        call.origin, call.location = answer.origin, answer.location
        return flask.Response(answer.body, answer.status, answer.headers)


class _Application(flask.Flask):
    """A Flask application with two changes.

    Exceptions of the types ``answers`` are handled even if they are no ``Exception``. A response is
    checked and rendered before Flask ends the request, so that for a response that cannot be sent,
    monitoring agents and applications around this one see the error.
    """

    def __init__(self, answers: tuple[type[BaseException], ...], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._answers = answers

    # Flask's version decides which arguments precede the exception.
    def full_dispatch_request(self, *arguments: Any) -> Any:
        try:
            return WireResponse(super().full_dispatch_request(*arguments))
        except Exception:
            raise  # Flask passes it to handle_exception
        except self._answers as exc:
            return self.handle_exception(*arguments, exc)

    def handle_exception(self, *arguments: Any) -> Any:
        return WireResponse(super().handle_exception(*arguments))

    def log_exception(self, *_: Any) -> None:
        """Does nothing, because the handler for 500 logs the exception."""


class WireResponse:
    """A checked and rendered response of Flask. It is a WSGI application, as Flask requires of a
    response.

    The constructor raises ResultError, or an exception of the script's own objects, if the response
    cannot be sent.
    """

    def __init__(self, response: flask.Response, takes_async: bool = False) -> None:
        call, environ = _current_call(), flask.request.environ
        self._close = response.close
        try:
            self.status = response.status
            self.number, self.reason = outputs.status_line(response.status)
            self.own = outputs.wire_headers(response.get_wsgi_headers(environ))
            self.body = outputs.response_body(response, environ["REQUEST_METHOD"], takes_async)
        except Exception:
            outputs.close(self._close)
            raise
        self.added = _added_fields(call, environ, self.number)
        call.sent = self

    @property
    def headers(self) -> Fields:
        """All headers that the client gets, except those for CORS and those about the
        connection."""
        own = self.own
        if self.number >= 500:
            own = [(name, value) for name, value in own if name.lower() != _FAILED]
        return [*own, *self.added]

    def answer(self, call: Call) -> outputs.Answer:
        """This response, for the worker."""
        headers = self.own
        if isinstance(self.body, bytes):
            headers = outputs.without_length(headers)
            outputs.close(self._close)
        return outputs.Answer(self.number, self.reason, headers, self.body, call.origin, call.seconds, call.location)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(self.status, self.headers)
        return ClosingIterator((self.body,), self._close) if isinstance(self.body, bytes) else self.body


class _Start:
    """``start_response`` of PEP 3333: keeps the status and headers of the outermost application."""

    def __init__(self) -> None:
        self.status: str | None = None
        self.headers: Fields = []
        self.written: list[bytes] = []

    def __call__(self, status: str, headers: Fields, exc_info: Any = None) -> Callable[[bytes], None]:
        self.status, self.headers = status, headers
        return self.written.append


def _receive(application: Callable[..., Iterable[Any]], environ: dict[str, Any], call: Call) -> outputs.Answer:
    """Call the application as a WSGI server does, and return its answer. Applications around Flask
    may have changed Flask's response."""
    start = _Start()
    parts = body = application(environ, start)
    closing: Callable[[], object] = getattr(body, "close", None) or _nothing
    try:
        if start.status is None:
            # An application around Flask that is a generator calls Flask only when its first part
            # is read.
            parts = iter(body)
            parts = itertools.chain(list(itertools.islice(parts, 1)), parts)
        sent = call.sent
        is_stream = isinstance(sent.body, outputs.Stream) if sent else not isinstance(body, (list, tuple))
        if not is_stream:
            read = list(parts)  # reading may call write(), so ``start.written`` is complete only after it
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


def _answer(call: Call, start: _Start, body: bytes | outputs.Stream) -> outputs.Answer:
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


def _without_added(headers: Fields, sent: WireResponse | None) -> Fields:
    """The headers without those that the front will add. ``sent`` contains them only so that
    applications around Flask see them."""
    headers = list(headers)
    for field in sent.added if sent else ():
        if field in headers:
            headers.remove(field)
    return headers


def _added_fields(call: Call, environ: dict[str, Any], status: int) -> Fields:
    """The headers that the front will add to this reply (contract sections 7 to 9)."""
    fields = []
    if call.origin in (outputs.SCRIPT_ERROR, outputs.TIMEOUT) or (call.origin == outputs.RESPONSE and status >= 500):
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


def _current_call() -> Call:
    call: Call | None = flask.request.environ.get(_CALL)
    if call is None:
        raise RuntimeError("This application answers only requests that the server passes to it")
    return call


def _json_response(content: Any, status: int = 200) -> flask.Response:
    return flask.Response(outputs.to_json(content), status, mimetype="application/json")


def _error_response(status: int, message: str) -> flask.Response:
    return _json_response({"message": message}, status)


def _shortened(exc: BaseException) -> BaseException:
    """``exc`` itself, with a traceback that begins outside of the server and Flask."""
    return exc.with_traceback(tracebacks.without_leading(exc.__traceback__, _FRAMEWORK))


def _not_served() -> str:
    raise NotImplementedError("This URL is answered without calling Python")


def fill_g(environ: dict[str, Any], request_id: str) -> None:
    client, legacy = client_ids(environ, request_id)
    g: Any = flask.g._get_current_object()  # because each access through the proxy takes longer
    g.api_name = "/score"
    g.request_id = request_id
    g.client_request_id = client
    g.legacy_client_request_id = legacy
    g.start_datetime = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    g.starting_perf_counter = time.perf_counter()
