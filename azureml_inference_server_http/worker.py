"""A worker process: load the user's script, run its init(), then serve jobs (``src/worker``) until it is let go.

Owns the order of start-up, its log lines (contract section 2) and what signals mean in a worker. Runs in a fork of the
launcher, on the main thread, which also is the thread that calls run().
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def run(settings: Settings, socket_path: str, supervisor: int) -> int:
    """The whole life of a worker. Returns the exit code."""
    from . import _core

    if not _core.die_with_parent(supervisor):
        return EXIT_OK
    retirement = Retirement()
    _set_signals(retirement)
    prepared = _prepare(settings)
    if prepared is None:
        return EXIT_CANNOT_START
    script, swagger = prepared
    _logger.info("Scoring timeout is set to %s", settings.scoring_timeout_ms)
    _logger.info("Worker with pid %d ready for serving traffic", os.getpid())
    _core.work(settings, socket_path=socket_path, script=script, swagger=swagger, retiring=retirement)
    return EXIT_OK


def _prepare(settings: Settings) -> tuple[object, dict[str, str]] | None:
    """Load and initialise the script; None when that failed, which has been logged."""
    from . import deadline, print_log_hook
    from . import script as user_script
    from .server.user_script import ScriptLoadError

    print("Initializing logger", flush=True)
    print_log_hook.install()
    deadline.install()
    try:
        script = user_script.load(settings)
        script.initialize()
    except ScriptLoadError:
        return None
    return script, {}


def _set_signals(retirement: Retirement) -> None:
    """Signals to the whole process group are the supervisor's to decide on; a TERM to a worker alone retires it.

    Handlers that do nothing, not SIG_IGN: programs that the script starts must not inherit deafness.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGTERM, retirement.ask)
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)
