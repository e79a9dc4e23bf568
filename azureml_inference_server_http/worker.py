"""A worker process: load the user's script, run its init(), then serve jobs (``src/worker``) until it is let go.

Owns the order of start-up, its log lines (contract section 2) and what signals mean in a worker. Runs in a fork of the
launcher, on the main thread, which also is the thread that calls run().
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, NamedTuple

from . import deadline, ending, signal_handlers, stdio
from .settings_table import PROCESS

if TYPE_CHECKING:
    from .script import Script
    from .settings import Settings

EXIT_OK = 0
# Tells the supervisor that trying again is pointless: the script cannot start.
EXIT_CANNOT_START = 3

_logger = logging.getLogger("azmlinfsrv")


class Retirement:
    """Whether a TERM to this process has asked it to finish the running request and go."""

    def __init__(self) -> None:
        self._asked = False

    def ask(self, *_: object) -> None:
        """Signal handler."""
        self._asked = True

    def __call__(self) -> bool:
        return self._asked


def run(settings: Settings, socket_path: str, supervisor: int, prepared: Prepared | None) -> int:
    """The whole life of a worker. ``prepared`` is what WORKER_PRELOAD made before the fork. Returns the exit code."""
    code = 1
    try:
        code = _serve(settings, socket_path, supervisor, prepared)
    finally:
        ending.limit(code)
    return code


def _serve(settings: Settings, socket_path: str, supervisor: int, prepared: Prepared | None) -> int:
    from . import _core

    if not _core.die_with_parent(supervisor):
        return EXIT_OK
    retirement = Retirement()
    _set_signals(retirement)
    prepared = prepared or prepare(settings)
    if prepared is None:
        return EXIT_CANNOT_START
    script, swagger = prepared
    log_scoring_timeout(settings)
    _logger.info("Worker with pid %d ready for serving traffic", os.getpid())
    _core.work(settings, front=socket_path, worker=os.getpid(), script=script, swagger=swagger, retiring=retirement)
    return EXIT_OK


def log_scoring_timeout(settings: Settings) -> None:
    """Log the limit of one run() that is in force (contract section 2, item 13)."""
    milliseconds, seconds = settings.scoring_timeout_ms, settings.worker_timeout
    remark = "" if milliseconds else " (no limit)"
    if seconds and (seconds * 1000 < milliseconds or not milliseconds):
        remark = f" (WORKER_TIMEOUT, {seconds} s, is shorter)"
    _logger.info("Scoring timeout is set to %d ms%s", milliseconds, remark)


class Prepared(NamedTuple):
    """A loaded and initialised script, with its swagger documents by version."""

    script: Script
    swagger: dict[str, str]


def prepare(settings: Settings) -> Prepared | None:
    """Load and initialise the script; None when that failed, which has been logged.

    Runs in each worker process; with WORKER_PRELOAD once, in the supervisor before it forks them; for worker threads on
    the main thread. Returns in that process
    alone: a child that the script forked, and let come this far, ends here.
    """
    own = os.getpid()
    prepared = None
    try:
        prepared = _load(settings)
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
    return Prepared(script, {version: document.decode() for version, document in documents.items()})


def _ignore(number: int, frame: object) -> None:
    """Signal handler."""


def _set_signals(retirement: Retirement) -> None:
    """Signals to the whole process group are the supervisor's to decide on; a TERM to a worker alone retires it.

    Handlers that do nothing, not SIG_IGN: programs that the script starts must not inherit deafness.
    """
    ignored = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
    handlers: dict[int, signal_handlers.Handler] = {signal.SIGTERM: retirement.ask, **dict.fromkeys(ignored, _ignore)}
    signal_handlers.install(handlers)
    signal_handlers.keep_from_children(handlers, *handlers.values())
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)
