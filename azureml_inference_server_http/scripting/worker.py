"""A worker process: loads the user's script, runs its init(), then serves jobs (``src/worker``)
until it retires.

Owns the order of its start, the log lines of the start (contract section 2), and the handlers of
signals in a worker. Runs on the main thread of a process that was forked from the supervisor, or
from the template (WORKER_PRELOAD). The same thread calls run().
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..launch import stdio
from ..launch.settings_table import PROCESS
from ..supervise import process_exit, signal_handlers
from . import deadline
from .watch import IMPORT, INIT, NOBODY, SWAGGER, Watch

if TYPE_CHECKING:
    import socket

    from ..launch.settings import Settings
    from .script import Script

EXIT_OK = 0
# The script cannot be started. The supervisor does not try again, because another attempt would
# fail as well.
EXIT_CANNOT_START = 3

_logger = logging.getLogger("azmlinfsrv")


class Retirement:
    """Notes that a worker has been asked to finish its running request and exit."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self, *_: object) -> None:
        """Ask the worker to exit. The arguments are those of a signal handler."""
        self._asked = True

    def __call__(self) -> bool:
        return self._asked


# The C function behind ``signal.getsignal``. The Python function also tries to make an enum of the
# handler, which takes several microseconds: too long, because this is called before each request.
_handler_of: Callable[[int], Any] = getattr(sys.modules.get("_signal"), "getsignal", signal.getsignal)


class SignalledRetirement(Retirement):
    """The retirement of a worker process. SIGTERM asks for it, or SIGQUIT if the server stops at
    once.

    A handler for SIGTERM that the script sets is replaced, and called at the end of the worker
    instead: if the signal called it, the handler could break the running request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_hurried = False
        self.script_handler: signal_handlers.Handler | None = None
        # Kept, because each ``self.ask`` makes another object, and handlers are compared by
        # identity.
        self._our_handler = self.ask

    def hurry(self, *_: object) -> None:
        """Signal handler: ask the worker to exit, and limit the script's cleanup to a moment."""
        self._asked = self.is_hurried = True

    def handlers(self) -> dict[int, signal_handlers.Handler]:
        """The signal handlers of a worker. It ignores INT and HUP, because they usually go to the
        whole process group, and the supervisor decides what they mean."""
        return {
            signal.SIGTERM: self._our_handler,
            signal.SIGQUIT: self.hurry,
            **dict.fromkeys((signal.SIGINT, signal.SIGHUP), signal_handlers.do_nothing),
        }

    def __call__(self) -> bool:
        # Checked before each request, because any call of run() may set a handler.
        if _handler_of(signal.SIGTERM) is not self._our_handler:
            self.script_handler = take_term_handler(self._our_handler)
        return self._asked


def take_term_handler(ours: Any) -> signal_handlers.Handler | None:
    """Replace the script's handler for SIGTERM by ``ours``. Returns the script's handler; None if
    it has none."""
    current = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, ours)
    return current if callable(current) and current != ours else None


def run(
    settings: Settings,
    front: socket.socket,
    supervisor: int,
    prepared: Prepared | None,
    watch: Watch = NOBODY,
    reports: socket.socket | None = None,
) -> int:
    """The main function of a worker process. Returns the exit code.

    The worker sends its connection through ``front`` (``supervise/worker_socket.py``). ``prepared``
    is the script that a template loaded before the fork; without it the worker loads the script.
    ``reports`` is where the worker sends what is exported (``supervise/report_socket.py``), None if
    nothing is.
    """
    retirement = SignalledRetirement()
    code = 1
    try:
        code = _serve(settings, front, supervisor, prepared, retirement, watch, reports)
    except Exception as error:
        # The traceback goes to standard error.
        _logger.critical("Worker with pid %d failed and ends: %s", os.getpid(), error)
        raise
    finally:
        seconds = settings.graceful_timeout if code == EXIT_OK else process_exit.FAILED_START
        _end(code, seconds, retirement)
    return code


def _end(code: int, seconds: float, retirement: SignalledRetirement) -> None:
    """Start the time limit for the script's cleanup, and call the script's handler for SIGTERM.
    Python runs the rest of the exit code when the main module returns."""
    # This call replaces a handler for SIGTERM that the last request may have set.
    retirement()
    end = process_exit.ProcessExit(code, None if retirement.is_hurried else seconds, {signal.SIGQUIT})
    end.begin()
    if code == EXIT_OK and retirement.script_handler and not retirement.is_hurried:
        end.call_term_handler(retirement.script_handler)


def _serve(
    settings: Settings,
    front: socket.socket,
    supervisor: int,
    prepared: Prepared | None,
    retirement: SignalledRetirement,
    watch: Watch,
    reports: socket.socket | None,
) -> int:
    from .. import _core

    if not _core.die_with_parent(supervisor):
        return EXIT_OK
    _set_signals(retirement)
    log_boot()
    # Reserves a descriptor for the connection, because the script may use up all others before the
    # worker connects.
    spare = front.dup()
    prepared = prepared or prepare(settings, watch, channel(reports))
    if prepared is None:
        return EXIT_CANNOT_START
    script, swagger, retirement.script_handler, init_seconds = prepared
    _core.set_init_duration(init_seconds)
    user_metrics = sys.modules.get("azureml_inference_server_http.api.metrics")
    if user_metrics is not None:
        user_metrics.follow_fork()
    if settings.warmup_samples is not None:
        warm_up(script, settings.warmup_samples)
    log_scoring_timeout(settings)
    _logger.info("Worker with pid %d ready for serving traffic", os.getpid())
    entrance = (front.detach(), spare.detach())
    _core.work(settings, front=entrance, worker=os.getpid(), script=script, swagger=swagger, retiring=retirement)
    if not retirement.is_hurried:
        script.close_loop()
    return EXIT_OK


def log_boot() -> None:
    """Log that this process begins to load the script. Logger and text are gunicorn's (contract
    section 2)."""
    from .. import log_config

    logging.getLogger(log_config.PROCESS_LOGGER_NAME).info("Booting worker with pid: %d", os.getpid())


def warm_up(script: Script, folder: str) -> None:
    """Call run() with the samples of this folder. The result of none of them matters to the start."""
    from . import warmup  # imported here, because most servers have no samples

    warmup.run(script, folder)


def log_scoring_timeout(settings: Settings) -> None:
    """Log the time limit for one call of run() (contract section 2, item 13)."""
    milliseconds, seconds = settings.scoring_timeout_ms, settings.worker_timeout
    remark = "" if milliseconds else " (no limit)"
    if seconds and (seconds * 1000 < milliseconds or not milliseconds):
        remark = f" (WORKER_TIMEOUT, {seconds} s, is shorter)"
    _logger.info("Scoring timeout is set to %d ms%s", milliseconds, remark)


class Prepared(NamedTuple):
    """A loaded and initialised script, with its swagger documents by version, its handler for
    SIGTERM, and the time that this took."""

    script: Script
    swagger: dict[str, str]
    term_handler: signal_handlers.Handler | None
    # Seconds in which the script was loaded and init() called.
    init_seconds: float


def channel(reports: socket.socket | None) -> Callable[[bytes], bool] | None:
    """Sends reports of this process to the front; None if nothing is exported."""
    if reports is None:
        return None
    from .telemetry import Channel

    return Channel(reports.fileno())


def prepare(settings: Settings, watch: Watch = NOBODY, send: Callable[[bytes], bool] | None = None) -> Prepared | None:
    """Load the script and call init(). Returns None if that failed; the reason has been logged.
    ``watch`` is told of each step.

    Runs in each worker process, with WORKER_PRELOAD in the template, and with worker threads on the
    main thread. If the script forks a child that returns into the server's code, that child exits
    here. ``send`` takes reports for the exporters; None if nothing is exported.
    """
    own = os.getpid()
    prepared = None
    term_handler = signal.getsignal(signal.SIGTERM)
    try:
        prepared = _load(settings, watch, send)
        if prepared is not None:
            prepared = prepared._replace(term_handler=take_term_handler(term_handler))
    finally:
        if os.getpid() != own:
            process_exit.at_once(EXIT_OK if prepared else 1)
    return prepared


def _load(settings: Settings, watch: Watch, send: Callable[[bytes], bool] | None) -> Prepared | None:
    from .. import log_config, print_log_hook
    from ..server.user_script import ScriptLoadError
    from . import current_request, debug, loading, swagger, worker_threads

    try:
        if settings.reload and log_config.find_user_config(settings) is not None:
            # The launcher has applied the file, but it may have changed since.
            log_config.configure(settings)
        debug.prepare(settings)
        _say_initializing(settings)
        print_log_hook.install()
        current_request.hand_on_to_threads()
        # Logged because tools wait for this line. It does not mean that telemetry is sent: the
        # banner says whether it is.
        _logger.info("Starting up app insights client")
        reporter = None
        if send is not None:
            from .telemetry import Reporter

            reporter = Reporter(settings, send, takes_children=settings.worker_class == PROCESS)
            reporter.install()
        if settings.cors_origins:
            origins = ", ".join(origin.strip() for origin in settings.cors_origins.split(","))
            _logger.info("Enabling CORS for the following origins: %s", origins)
        if settings.worker_class == PROCESS:
            # Installed before the script is loaded, so that a script can replace the handler of the
            # alarm signal.
            deadline.install()
        logger_before = log_config.LoggerState()
        with _progress(settings):
            watch.begins(IMPORT)
            began = time.monotonic()
            script = loading.load(settings, reporter)
            watch.loaded(script)
            watch.begins(INIT)
            script.initialize()
            if settings.worker_threads > 1:
                worker_threads.check(script)
            init_seconds = time.monotonic() - began
        script.logs_requests = logger_before.has_changed()
        if any(name in os.environ for name in ("AML_DBG_MODEL_INFO", "AML_DBG_RESOURCE_INFO")):
            _logger.warning(
                "The debuggability features have been removed. If you have a use case for them please reach out to us."
            )
        watch.begins(SWAGGER)
        built = swagger.build(script, settings)
    except (debug.DebuggerError, log_config.LogConfigError, swagger.SwaggerError) as error:
        _logger.error("%s", error)
        watch.failed(error)
        return None
    except ScriptLoadError as error:
        if isinstance(error, worker_threads.CannotUseThreads):
            _logger.error("%s", error)
        watch.failed(error)
        return None
    documents = {version: document.decode() for version, document in built.items()}
    watch.is_ready(script, documents)
    return Prepared(script, documents, None, init_seconds)


def _say_initializing(settings: Settings) -> None:
    """The first line of a worker, which in text is no log record (contract section 2)."""
    if settings.display.json_log is not None:
        _logger.info("Initializing logger")
        return
    # OSError: nobody reads standard output any more. The script is served anyway.
    with contextlib.suppress(OSError):
        print("Initializing logger", file=stdio.stream_of_log(_logger), flush=True)


@contextlib.contextmanager
def _progress(settings: Settings) -> Iterator[None]:
    """Let the supervisor show on a terminal that the script is being loaded."""
    progress = settings.display.progress
    if progress is None:
        yield
        return
    progress.begin()
    try:
        yield
    finally:
        progress.end()


def _set_signals(retirement: SignalledRetirement) -> None:
    handlers = retirement.handlers()
    signal_handlers.install(handlers)
    signal_handlers.keep_from_children(handlers, *handlers.values())
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)
