"""A worker process: load the user's script, run its init(), then serve jobs (``src/worker``) until it is let go.

Owns the order of start-up, its log lines (contract section 2) and what signals mean in a worker. Runs in a fork of the
launcher, or of the template (WORKER_PRELOAD), on the main thread, which also is the thread that calls run().
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from . import deadline, ending, signal_handlers, stdio
from .settings_table import PROCESS

if TYPE_CHECKING:
    import socket

    from .script import Script
    from .settings import Settings

EXIT_OK = 0
# Tells the supervisor that trying again is pointless: the script cannot start.
EXIT_CANNOT_START = 3

_logger = logging.getLogger("azmlinfsrv")


class Retirement:
    """Whether a worker has been asked to finish its running request and go."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self, *_: object) -> None:
        """Also a signal handler."""
        self._asked = True

    def __call__(self) -> bool:
        return self._asked


# What ``signal.getsignal`` calls. That tries to make an enum of the handler, which takes several microseconds: too long
# to be done before each request.
_handler_of: Callable[[int], Any] = getattr(sys.modules.get("_signal"), "getsignal", signal.getsignal)


class SignalledRetirement(Retirement):
    """The same in a worker process, which is asked by SIGTERM, or by SIGQUIT if the server stops at once.

    A handler for SIGTERM that the script sets is kept for the end of the worker. It would break the running request if
    the signal called it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_hurried = False
        self.script_handler: signal_handlers.Handler | None = None
        # The same object each time, unlike ``self.ask``.
        self._our_handler = self.ask

    def hurry(self, *_: object) -> None:
        """Signal handler: like ``ask``, but the server does not wait for what the script does at its end."""
        self._asked = self.is_hurried = True

    def handlers(self) -> dict[int, signal_handlers.Handler]:
        """Signals to the whole process group are the supervisor's to decide on; a TERM to a worker alone retires it."""
        return {
            signal.SIGTERM: self._our_handler,
            signal.SIGQUIT: self.hurry,
            **dict.fromkeys((signal.SIGINT, signal.SIGHUP), signal_handlers.do_nothing),
        }

    def __call__(self) -> bool:
        # Before each request, as any of them may set a handler.
        if _handler_of(signal.SIGTERM) is not self._our_handler:
            self.script_handler = take_term_handler(self._our_handler)
        return self._asked


def take_term_handler(ours: Any) -> signal_handlers.Handler | None:
    """Put our handler for SIGTERM in the place of the script's, which is returned; None if the script has none."""
    current = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, ours)
    return current if callable(current) and current != ours else None


def run(settings: Settings, front: socket.socket, supervisor: int, prepared: Prepared | None) -> int:
    """The whole life of a worker. ``front`` takes its connection (``worker_socket.py``); ``prepared`` is what
    a template made before the fork. Returns the exit code."""
    retirement = SignalledRetirement()
    code = 1
    try:
        code = _serve(settings, front, supervisor, prepared, retirement)
    finally:
        seconds = settings.graceful_timeout if code == EXIT_OK else ending.FAILED_START
        _end(code, seconds, retirement)
    return code


def _end(code: int, seconds: float, retirement: SignalledRetirement) -> None:
    """What the script has to do at its end, up to where Python itself goes on with it."""
    # Looks for a handler that the last request has set.
    retirement()
    end = ending.Ending(code, None if retirement.is_hurried else seconds, {signal.SIGQUIT})
    end.begin()
    if code == EXIT_OK and retirement.script_handler and not retirement.is_hurried:
        end.call_term_handler(retirement.script_handler)


def _serve(
    settings: Settings,
    front: socket.socket,
    supervisor: int,
    prepared: Prepared | None,
    retirement: SignalledRetirement,
) -> int:
    from . import _core

    if not _core.die_with_parent(supervisor):
        return EXIT_OK
    _set_signals(retirement)
    log_boot()
    # Reserves a descriptor: a script may use up nearly all before the worker connects.
    spare = front.dup()
    prepared = prepared or prepare(settings)
    if prepared is None:
        return EXIT_CANNOT_START
    script, swagger, retirement.script_handler = prepared
    log_scoring_timeout(settings)
    _logger.info("Worker with pid %d ready for serving traffic", os.getpid())
    entrance = (front.detach(), spare.detach())
    _core.work(settings, front=entrance, worker=os.getpid(), script=script, swagger=swagger, retiring=retirement)
    return EXIT_OK


def log_boot() -> None:
    """Log that this process begins to start the script, where and as gunicorn did (contract section 2)."""
    from . import log_config

    logging.getLogger(log_config.PROCESS_LOGGER_NAME).info("Booting worker with pid: %d", os.getpid())


def log_scoring_timeout(settings: Settings) -> None:
    """Log the limit of one run() that is in force (contract section 2, item 13)."""
    milliseconds, seconds = settings.scoring_timeout_ms, settings.worker_timeout
    remark = "" if milliseconds else " (no limit)"
    if seconds and (seconds * 1000 < milliseconds or not milliseconds):
        remark = f" (WORKER_TIMEOUT, {seconds} s, is shorter)"
    _logger.info("Scoring timeout is set to %d ms%s", milliseconds, remark)


class Prepared(NamedTuple):
    """A loaded and initialised script, with its swagger documents by version and its handler for SIGTERM."""

    script: Script
    swagger: dict[str, str]
    term_handler: signal_handlers.Handler | None


def prepare(settings: Settings) -> Prepared | None:
    """Load and initialise the script; None when that failed, which has been logged.

    Runs in each worker process; with WORKER_PRELOAD in the template; for worker threads on the main thread. Returns in
    that process alone: a child that the script forked, and let come this far, ends here.
    """
    own = os.getpid()
    prepared = None
    term_handler = signal.getsignal(signal.SIGTERM)
    try:
        prepared = _load(settings)
        if prepared is not None:
            prepared = prepared._replace(term_handler=take_term_handler(term_handler))
    finally:
        if os.getpid() != own:
            ending.at_once(EXIT_OK if prepared else 1)
    return prepared


def _load(settings: Settings) -> Prepared | None:
    from . import debug, log_config, print_log_hook, swagger
    from . import script as user_script
    from .server.user_script import ScriptLoadError

    try:
        debug.connect(settings)
        # The line is for people; a reader that has gone away must not keep the script from being served.
        with contextlib.suppress(OSError):
            print("Initializing logger", file=stdio.stream_of_log(_logger), flush=True)
        print_log_hook.install()
        # Tools wait for the line. It says nothing about telemetry, of which the banner and a warning tell.
        _logger.info("Starting up app insights client")
        if settings.cors_origins:
            origins = ", ".join(origin.strip() for origin in settings.cors_origins.split(","))
            _logger.info("Enabling CORS for the following origins: %s", origins)
        if settings.worker_class == PROCESS:
            # Before the script is loaded, so that a script which wants the alarm signal for itself wins.
            deadline.install()
        logger_before = log_config.LoggerState()
        script = user_script.load(settings)
        script.initialize()
        script.logs_requests = logger_before.has_changed()
        if any(name in os.environ for name in ("AML_DBG_MODEL_INFO", "AML_DBG_RESOURCE_INFO")):
            _logger.warning(
                "The debuggability features have been removed. If you have a use case for them please reach out to us."
            )
        documents = swagger.build(script, settings)
    except (debug.DebuggerError, swagger.SwaggerError) as error:
        _logger.error("%s", error)
        return None
    except ScriptLoadError:
        return None
    return Prepared(script, {version: document.decode() for version, document in documents.items()}, None)


def _set_signals(retirement: SignalledRetirement) -> None:
    handlers = retirement.handlers()
    signal_handlers.install(handlers)
    signal_handlers.keep_from_children(handlers, *handlers.values())
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)
