"""The Flask side of a request: what a script may read from ``flask.request``, ``g`` and ``current_app``.

Owns a Flask application that no server serves: its one used view calls run(). It exists so that raw scripts get a real
request, and so that a script that imported Flask finds what it found under the published server (contract section 11).
Does not own how results become bytes (``outputs``) or which scripts need this (``script``). Imports Flask, so it is
imported only once the script did, or has a line that will. Runs in workers, perhaps in several threads at once, and in
tests of scripts through ``server.create_app``.
"""

from __future__ import annotations

import datetime
import io
import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, NamedTuple
from urllib.parse import unquote_to_bytes

import flask
from werkzeug.wsgi import FileWrapper

from . import outputs
from .settings_table import PROCESS, THREAD

if TYPE_CHECKING:
    from .settings import Settings

APPLICATION_NAME = "azureml_inference_server_http.server.create_app"
_FOLDER = os.path.dirname(os.path.abspath(__file__))
_LOOPBACK = frozenset({"127.0.0.1", "::1"})
# Header and value by which a proxy on this machine says that the client used https.
_HTTPS = (("HTTP_X_FORWARDED_PROTO", "https"), ("HTTP_X_FORWARDED_SSL", "on"), ("HTTP_X_FORWARDED_PROTOCOL", "ssl"))


class Request(NamedTuple):
    """One HTTP request as the front received it.

    ``target``: as on the request line, undecoded. ``http_minor``: 1 for HTTP/1.1. ``headers``: names in any case and
    values, in the order sent. ``body``: whole and decoded from chunks. ``peer``: such as "127.0.0.1:4711" or
    "[::1]:4711". ``request_id``: what goes out as ``x-request-id``. Each character of a text is one byte (latin-1).
    """

    method: str
    target: str
    http_minor: int
    headers: list[tuple[str, str]]
    body: bytes
    peer: str
    request_id: str


class _Call:
    """One call of run(): what to call, and what came of it."""

    def __init__(self, request_id: str, kwargs: dict[str, Any] | None) -> None:
        self.request_id = request_id
        self.kwargs = kwargs
        self.seconds = 0.0
        self.failure: BaseException | None = None
        self.is_response = False
        # An answer of the view always passes _keep, which replaces this.
        self.outcome: outputs.Rendered | Exception = RuntimeError("Flask did not call the view of /score")


class FlaskContext:
    """Calls run() inside request contexts of one application, ``app``.

    ``input_name`` and ``pass_headers`` say how a raw run() takes the request.
    """

    def __init__(self, settings: Settings, run: Callable[..., Any], input_name: str, pass_headers: bool) -> None:
        self._run = run
        self._input_name = input_name
        self._pass_headers = pass_headers
        self._server = {
            "SERVER_NAME": settings.host,
            "SERVER_PORT": str(settings.port),
            "SERVER_SOFTWARE": settings.server_version,
            "wsgi.multithread": settings.worker_class == THREAD and settings.worker_count > 1,
            "wsgi.multiprocess": settings.worker_class == PROCESS and settings.worker_count > 1,
        }
        self.app = self._build_app()
        self._serve = self.app.wsgi_app  # taken once: server.create_app puts itself in front of it
        self._ignored = flask.Response(status=204)
        self._current = threading.local()  # .call: the _Call under way

    def call(self, request: Request, kwargs: dict[str, Any] | None) -> outputs.Prepared:
        """Call run() for a request of the front; see ``call_in``."""
        return self.call_in(build_environ(request, self._server), request.request_id, kwargs)

    def call_in(self, environ: dict[str, Any], request_id: str, kwargs: dict[str, Any] | None) -> outputs.Prepared:
        """Call run() with ``kwargs``, or with the Flask request of ``environ`` if they are None.

        The result comes rendered, because functions of ``after_this_request`` may change the answer to any result and
        need the context for it. Raises what run() raised, BaseException included.
        """
        self._current.call = call = _Call(request_id, kwargs)
        try:
            self._serve(environ, _start_nothing)
        except TimeoutError:  # the timer may strike while Flask's own code runs
            raise
        except Exception as exc:
            call.outcome = exc  # of rendering, or of a function of after_this_request
        finally:
            del self._current.call
        if call.failure is None:
            return outputs.Prepared(call.outcome, call.seconds)
        try:
            raise call.failure
        finally:
            call.failure = None  # its traceback refers back to this frame

    def _build_app(self) -> flask.Flask:
        app = _Application(
            self._keep,
            APPLICATION_NAME,
            root_path=_FOLDER,
            instance_path=os.path.join(_FOLDER, "instance"),
            static_folder="static",
        )
        app.config["PROPAGATE_EXCEPTIONS"] = True
        main = flask.Blueprint("main", APPLICATION_NAME, root_path=_FOLDER)
        # Whoever is in front answers the first two; they are here for url_for and url_map.
        main.add_url_rule("/", "health_probe", _not_served)
        main.add_url_rule("/swagger.json", "get_swagger_specification", _not_served)
        methods = ["GET", "POST", "OPTIONS", "HEAD"]
        main.add_url_rule("/score", "handle_score", self._score, methods=methods, provide_automatic_options=False)
        app.register_blueprint(main)
        return app

    def _score(self) -> flask.Response:
        """The view: runs the script. Its exceptions must not meet Flask, which would answer an abort() by itself."""
        call: _Call = self._current.call
        _fill_g(flask.request.environ, call.request_id)
        kwargs = self._raw_arguments() if call.kwargs is None else call.kwargs
        started = time.perf_counter()
        try:
            result = self._run(**kwargs)
        except BaseException as exc:
            call.failure = exc
            return flask.Response()
        finally:
            call.seconds = time.perf_counter() - started
        if isinstance(result, flask.Response):
            call.is_response = True
            return result
        return _as_response(result)

    def _raw_arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {self._input_name: flask.request}
        if self._pass_headers:
            arguments["request_headers"] = dict(flask.request.headers)
        return arguments

    def _keep(self, response: flask.Response) -> flask.Response:
        call: _Call = self._current.call
        if call.failure is None:
            try:
                if call.is_response:
                    outputs.note_response()
                status, reason, headers, body, _ = outputs.render_response(response, flask.request.method)
                call.outcome = (status, reason, headers, body, call.is_response)
            except Exception as exc:
                call.outcome = exc
        # Flask goes on with an empty answer: the body of the real one is read later, after the context ended.
        return self._ignored


class _Application(flask.Flask):
    """Gives ``keep`` the response of each call once ``after_this_request`` and the session have had their say, and
    Flask what ``keep`` returns."""

    def __init__(self, keep: Callable[[flask.Response], flask.Response], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._keep = keep

    def process_response(self, *arguments: Any) -> flask.Response:  # what comes before the response depends on Flask
        return self._keep(super().process_response(*arguments))


def _as_response(result: Any) -> flask.Response:
    """A plain result as the Response that functions of after_this_request expect to get."""
    return flask.Response(outputs.to_json({} if result is None else result), mimetype="application/json")


def _not_served() -> str:
    raise NotImplementedError("This URL is answered without calling Python")


def _start_nothing(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], object]:
    return lambda chunk: None


def _fill_g(environ: dict[str, Any], request_id: str) -> None:
    legacy, client = environ.get("HTTP_X_MS_REQUEST_ID", ""), environ.get("HTTP_X_MS_CLIENT_REQUEST_ID", "")
    g: Any = flask.g._get_current_object()  # each use of the proxy costs
    g.api_name = "/score"
    g.request_id = request_id
    g.client_request_id = client or legacy
    g.legacy_client_request_id = legacy or client or request_id
    g.start_datetime = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    g.starting_perf_counter = time.perf_counter()


def build_environ(request: Request, server: dict[str, Any]) -> dict[str, Any]:
    """The WSGI environ of contract section 11; ``server`` holds what is the same for every request."""
    path, query = split_target(request.target)
    address, _, port = request.peer.rpartition(":")
    address = address.strip("[]")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": request.target,
        "SERVER_PROTOCOL": f"HTTP/1.{request.http_minor}",
        "REMOTE_ADDR": address,
        "REMOTE_PORT": port,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.run_once": False,
        **server,
        **_header_variables(request.headers),
    }
    if address in _LOOPBACK and any(environ.get(name) == value for name, value in _HTTPS):
        environ["wsgi.url_scheme"] = "https"
    return environ


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request target, which may be a whole URL. A fragment is cut off."""
    if not target.startswith("/"):
        authority = target.partition("://")[2]
        target = authority[authority.find("/") :] if "/" in authority else "/"
    path, _, query = target.partition("#")[0].partition("?")
    return path, query


def _header_variables(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers as environ keys. Repeated ones are joined; names with an underscore could pass for others, so they go."""
    variables: dict[str, str] = {}
    for name, value in headers:
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        variables[key] = f"{variables[key]},{value}" if key in variables else value
    return variables
