"""The user's script once it is loaded: calls init(), and logs the script's errors.

``loading`` finds and imports it. Other modules read the signature of run() (``signature``), make its
arguments (``inputs``) and render its results (``outputs``). ``Script`` has them as methods, because
the Rust worker loop calls this one object only. Runs in workers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, Callable, NoReturn

from ..launch.stdio import finish_standard_streams
from ..server.user_script import ScriptLoadError, UserScriptException, UserScriptTimeout
from . import (
    arrays,
    batching,
    cooperative,
    hints,
    inputs,
    outputs,
    own_files,
    signature,
    trace_context,
    tracebacks,
    traps,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable

    from ..launch.settings import Settings
    from . import async_calls, inference_model, wsgi_environ
    from .flask_context import FlaskContext
    from .telemetry import Reporter

_TRACEBACK = "Traceback (most recent call last):"
_logger = logging.getLogger("azmlinfsrv")
_script_logger = logging.getLogger("azmlinfsrv.user_script")


class Script:
    """A loaded script. The Rust worker loop reads these attributes and calls these methods.

    ``run``: the function. It is looked up once, so a later assignment to the name in the script has
    no effect. ``mode``: "text" (body or query as text), "schema" (keyword arguments), "raw" (the
    Flask request) or "raw_v2" (tensors). ``input_name``: name of the argument that gets the input in the text and raw
    modes. ``pass_headers``: True if run() has a ``request_headers`` parameter. ``is_async``: True if
    run() has to be awaited. ``file``: path of the script whose init() is called.
    ``logs_requests``: True if the script changed the logger, so that the worker logs requests with
    ``log_request``. ``reporter``: takes what is exported about requests; None if nothing is
    exported.
    """

    def __init__(
        self,
        file: str,
        init: Any,
        run: Callable[..., Any],
        call: signature.Call,
        settings: Settings,
        reporter: Reporter | None,
    ) -> None:
        self.file = file
        self.run = run
        self.mode = call.mode
        self.parameters = call.parameters
        self.input_name = call.parameters[0].name
        self.pass_headers = call.pass_headers
        self.is_async = call.is_async
        self.logs_requests = False
        self.init = init
        # run() as the script has it, also while its calls are watched.
        self.plain_run = run
        # The script as a model of the Open Inference Protocol, if it is served by that.
        self._model: inference_model.Model | None = None
        # What ``watch_calls`` puts around a function.
        self.watched: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda function: function
        self._settings = settings
        self.reporter = reporter
        self._own_folders = own_files.folders_of(settings, file)
        self._flask_context: FlaskContext | None = None
        self._flask_lock = threading.Lock()
        self._has_run = False
        # Id of the process in which init() runs.
        self._home = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: async_calls.Calls | None = None

    @property
    def needs_request(self) -> bool:
        """True if run() must be called through Flask: the script is raw, or Flask has been imported
        by it or for it."""
        return self.mode == "raw" or "flask" in sys.modules

    @property
    def json_is_changed(self) -> bool:
        """True if every result must be rendered by ``render``; see ``outputs.json_is_changed``."""
        return outputs.json_is_changed()

    def initialize(self) -> None:
        """Call the script's init() and log the steps. If it fails, logs the error and raises
        ScriptLoadError."""
        _script_logger.info("Invoking user's init function")
        try:
            if self.is_async or signature.is_async(self.init):
                from . import event_loop  # imported here, because most scripts never need it

                event_loop.complete(self.loop, self.init())
            else:
                self.init()
        except BaseException as exc:
            _logger.error("User's init function failed")
            failure = UserScriptException()
            text = tracebacks.caused(failure, exc)
            _logger.error("Encountered Exception %s", text)
            if self.reporter is not None:
                self.reporter.exception(failure, exc, text)
            hints.log_missing_module(exc, self.file)
            hints.log_model_folder(self._settings.model_dir)
            raise ScriptLoadError("init() of the user script failed") from exc
        _script_logger.info("Users's init has completed successfully")
        self._note_logging()
        if self._settings.serves_v2:
            from . import inference_model  # imported here, because it imports numpy

            self._model = inference_model.of(self, self._settings)
        if self.needs_request or self._may_import_flask():
            self._flask()  # imported now, so that the first request need not wait for it

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of an async init() and run(). It is made before init() is called. A process that is forked
        after that gets its own, because two processes must not share one."""
        from . import event_loop

        if self._loop is None or self._loop.is_closed() or self._home != os.getpid():
            self._home = os.getpid()
            self._loop = event_loop.make_loop()
        return self._loop

    def calls(self) -> async_calls.Calls:
        """Make the object that runs the calls of an async run() in this worker process."""
        from . import async_calls

        self._calls = async_calls.Calls(self, self._settings, self.loop)
        return self._calls

    def close_loop(self) -> None:
        """End the event loop, if there is one: cancel the tasks that are left."""
        if self._loop is not None:
            from . import event_loop

            if self._calls is not None:
                self._calls.release()
            event_loop.close(self._loop)

    def watch_calls(self, watched: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Let the worker call ``watched(run)`` instead of run(). This must be done before the worker
        loop starts, because the loop reads ``run`` once."""
        self.watched = watched
        self.run = watched(self.run)

    def waiter(self) -> cooperative.Waiter:
        """Make the object that waits for jobs in this worker process; see ``cooperative.Waiter``."""
        return cooperative.Waiter(inherited=os.getpid() != self._home)

    def batches(self) -> batching.Batches | None:
        """Decide how one call of run() answers several requests in this worker; see ``batching.batches_of``."""
        return batching.batches_of(self, self._settings)

    def query_input(self, query: bytes) -> str:
        """The input of an undecorated run() for GET; see ``inputs.query_input``."""
        return inputs.query_input(query)

    def schema_arguments(self, method: str, content_type: str | None, query: bytes, body: bytes) -> dict[str, Any]:
        """Keyword arguments of a schema-decorated run(); see ``inputs.schema_arguments``."""
        try:
            return inputs.schema_arguments(self.parameters, method, content_type, query, body)
        except (ValueError, RecursionError) as exc:
            if not self._settings.client_errors:
                raise
            raise inputs.InputError(400, f"POST body could not be decoded as JSON: {exc}") from exc

    def bind_parameters(self, values: Any) -> dict[str, Any]:
        """Keyword arguments of a schema-decorated run(), from a parsed body; see ``inputs.bind_parameters``."""
        return inputs.bind_parameters(self.parameters, values)

    def array_inputs(self) -> list[arrays.ArrayInput]:
        """Parameters whose JSON lists can be read into numpy arrays without Python lists; see
        ``arrays``."""
        return arrays.array_inputs(self.plain_run)

    @property
    def model_description(self) -> str:
        """The JSON of the script as a model of the Open Inference Protocol; empty if it is not served by that."""
        return self._model.description() if self._model is not None else ""

    def infer_path(self) -> str:
        """Where requests of the Open Inference Protocol go."""
        return self._settings.infer_path

    def decode_inference(self, document: Any, memory: Any, is_bare: bool) -> tuple[dict[str, Any], Any]:
        """Keyword arguments of run() and what the reply must have; see ``inference_model.Model.decode``."""
        return self._of_v2().decode_bare(memory) if is_bare else self._of_v2().decode(document, memory)

    def render_tensors(self, result: Any, asked: Any) -> Any:
        """The reply with a result of run(); see ``inference_model.Model.encode``."""
        return self._of_v2().encode(result, asked)

    def _of_v2(self) -> inference_model.Model:
        if self._model is None:
            raise RuntimeError("The script is not served by the Open Inference Protocol")
        return self._model

    def to_json(self, value: Any) -> bytes:
        """A value as JSON; see ``outputs.to_json``."""
        return outputs.to_json(value)

    def call_with_request(
        self,
        method: str,
        target: str,
        http_minor: int,
        headers: list[tuple[str, str]],
        body: bytes,
        sender: tuple[str, str, bool | None],
        request_id: str,
        kwargs: dict[str, Any] | None,
        problem: tuple[int, str] | Exception | None = None,
        asked: Any = None,
    ) -> outputs.Answer:
        """Call run() through Flask with ``kwargs``, or with the Flask request if they are None (raw
        mode).

        ``problem``: the reason why run() cannot be called, which is the status and message of a
        refusal, or an error of the server. The other arguments are the fields of
        ``wsgi_environ.Request``. If run() raises an exception, it is logged, and the answer is the
        error reply.
        """
        from .wsgi_environ import Request  # imported here, because it imports parts of Flask

        request = Request(method, target, http_minor, headers, body, sender, request_id, asked)
        return self._flask().call(request, kwargs, problem)

    async def call_async_with_request(
        self,
        request: wsgi_environ.Request,
        kwargs: dict[str, Any] | None,
        run: Callable[[dict[str, Any]], Awaitable[Any]],
        send: Callable[[outputs.Answer], Awaitable[None]],
        is_over: Callable[[], bool],
    ) -> None:
        """Await an async run() in a request context of Flask; see ``flask_async.call``."""
        from . import flask_async

        await flask_async.call(self._flask(), self, request, kwargs, run, send, is_over)

    def render(self, result: Any, method: str) -> outputs.Answer:
        """Make the answer for any result of run() that was not called through Flask; see
        ``outputs.render``."""
        return outputs.render(result, method)

    def note_result(self, result: Any) -> None:
        """Hint at what the script may have meant by this result; called for results of run() that were sent."""
        traps.note_result(result)
        if not self._has_run:
            self._has_run = True
            self._note_logging()

    def run_failed(self, exc: BaseException, accept: str, body: bytes) -> outputs.Answer:
        """Log that run() raised ``exc``, and make the reply; see ``failures.of_run``."""
        from . import failures  # imported here, because most scripts never need it

        return failures.of_run(self, self._settings, exc, accept, body)

    def server_failed(self, exc: BaseException, accept: str) -> outputs.Answer:
        """Log an error that run() did not raise, and make the reply; see ``failures.of_server``."""
        from . import failures

        return failures.of_server(self, self._settings, exc, accept)

    @property
    def explains_errors(self) -> bool:
        """True if ``run_failed`` and ``server_failed`` make the replies to errors."""
        return self._settings.error_details or self._settings.client_errors

    def input_refused(self, message: str) -> None:
        """Log why the input of a client is refused. Level DEBUG, because the client's reply has the
        reason too."""
        _logger.debug("The input of the request is refused: %s", message)

    def script_failed(self, exc: BaseException) -> str:
        """Log that run() raised ``exc``. A TimeoutError is logged as the scoring timeout (contract
        section 8).

        Returns the value of the ``x-ms-run-error-location`` header, for example ``score.py:12
        ZeroDivisionError``, or the name of the exception alone if no frame of the traceback is in
        the user's own files.
        """
        failure = self._failure(exc)
        text = tracebacks.caused(failure, exc)
        _logger.debug("Run function exception caught")
        _logger.error("Encountered Exception: %s", text)
        if self.reporter is not None:
            self.reporter.exception(failure, exc, text)
        hints.log_missing_module(exc, self.file)
        return self.location(exc)

    def call_overdue(self, exc: BaseException, message: str) -> None:
        """Log that a call of an async run() was cancelled because of WORKER_TIMEOUT, and where."""
        _logger.error("%s The call was cancelled:\n%s", message, tracebacks.text_of(exc))

    def error_text(self, exc: BaseException) -> str:
        """The traceback of an exception of run(), as it is logged, and sent with
        ``--error_details``."""
        return tracebacks.caused(self._failure(exc), exc)

    def _failure(self, exc: BaseException) -> Exception:
        """The exception that the log names as the consequence of an exception of run()."""
        if isinstance(exc, TimeoutError):
            return UserScriptTimeout(self._settings.scoring_timeout_ms)
        return UserScriptException()

    def attach_span(self, traceparent: str, tracestate: str) -> Any:
        """Make spans of the script children of this one; see ``trace_context.attach``."""
        return trace_context.attach(traceparent, tracestate)

    def detach_span(self, token: Any) -> None:
        """Undo ``attach_span``."""
        trace_context.detach(token)

    @property
    def collects_model_data(self) -> bool:
        """Whether ``collect`` must be called after each run() that has succeeded."""
        return self.reporter is not None and self.reporter.collects_model_data

    def collect(self, arguments: dict[str, Any], result: Any) -> None:
        """Report input and output of a run() that has succeeded."""
        if self.reporter is not None:
            if self._model is not None:
                arguments = self._model.plain(arguments)
            given = arguments if self.mode == "schema" else next(iter(arguments.values()), None)
            self.reporter.model_data(given, result)

    def log_request(self, level: int, text: str) -> None:
        """Log a line about a request in this worker, so that the filters and handlers that the
        script has added to the logger act on it."""
        _logger.log(level, text)

    def internal_failed(self, exc: BaseException) -> None:
        """Log an error that run() did not raise, such as a result that cannot be rendered."""
        text = tracebacks.text_of(exc)
        if not text.startswith(_TRACEBACK):  # text_of has left out all frames, because all are the server's own
            text = f"{_TRACEBACK}\n{text}"
        _logger.error("Encountered Exception: %s", text)

    def end_forked_child(self, exc: BaseException | None) -> NoReturn:
        """End a process that run() has forked, when run() returns in it or raises ``exc`` in it.
        Such a child must not continue with the server's code.

        The exit code is that of a Python script: SystemExit's code, 1 for any other exception, else
        0.
        """
        code = 0
        if isinstance(exc, SystemExit):
            code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        elif exc is not None:
            code = 1
            with contextlib.suppress(OSError, ValueError):
                traceback.print_exception(type(exc), exc, exc.__traceback__)
        finish_standard_streams()
        os._exit(code & 0xFF)

    def _may_import_flask(self) -> bool:
        """True if one of the user's own files that are loaded has a line that imports Flask. Then
        run() may import Flask, and use the request, in its first call."""
        own = {file for _, file in own_files.loaded_modules(self._own_folders)}
        return any(map(own_files.imports_flask, own | {self.file}))

    def _flask(self) -> FlaskContext:
        with self._flask_lock:  # because threads of --worker_threads may ask at once, and there must be one application
            if self._flask_context is None:
                from .flask_context import FlaskContext

                self._flask_context = FlaskContext(self._settings, self)
            return self._flask_context

    def _note_logging(self) -> None:
        traps.note_lost_logging([name for name, _ in own_files.loaded_modules(self._own_folders)])

    def location(self, exc: BaseException) -> str:
        """The value of the ``x-ms-run-error-location`` header; see ``script_failed``."""
        return own_files.location(exc, self._own_folders)
