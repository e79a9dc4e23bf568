"""Starts the server with worker processes: decides what it needs, and runs the supervisor's loop.

The launcher, which becomes the supervisor here, calls ``run`` when the listeners are open.
``processes.py`` owns the children.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from .. import _core, log_config
from ..launch import listeners, stdio
from ..scripting import debug
from ..scripting.watch import NOBODY, Watch
from . import reports, shortage, supervising, titles
from .children import EXIT_FAILED
from .processes import Processes
from .state import Supervisor
from .worker_kinds import DEBUGGED_PROCESS, PRELOADED_PROCESSES, PROCESSES, Kind
from .workers import longest_request

if TYPE_CHECKING:
    from ..launch.settings import Settings
    from .watching import Watching

_logger = logging.getLogger("azmlinfsrv")


def run(settings: Settings, clients: list[socket.socket], watch: Watch = NOBODY) -> int:
    """Start the front and the workers behind these listeners, and supervise them until the server
    stops. Each process that loads the script tells ``watch`` how far its start has come; with
    --reload it tells the supervisor instead.

    Returns the exit code of the current process. This function also returns in each child that is
    forked.
    """
    # Done before the first log record, because a reader of the log that has gone must not be an
    # error.
    log = stdio.take_over_log(_logger) if log_config.find_user_config(settings) is None else None
    titles.set_name(titles.COMMAND)
    listeners.announce(settings, clients)
    state = Supervisor(
        settings.worker_count,
        settings.graceful_timeout,
        _kind(settings),
        longest_request(settings.worker_timeout, settings.scoring_timeout_ms),
        reports.is_debugged,
        watches_files=settings.reload,
        init_concurrency=settings.init_concurrency,
    )
    try:
        if settings.counts_metrics:
            _core.share_metrics()
        watching = _watching(settings)
        told = watch if watching is None else watching.reports()
        processes = Processes(settings, clients, log, told, watching)
    except OSError as error:
        _logger.critical("The server cannot start: %s", shortage.explain(error))
        return EXIT_FAILED
    processes.catch_signals()
    try:
        processes.watch_files()
        code = supervising.run(state, processes, settings.display.progress)
    except supervising.ChildEnded as child:
        return child.code
    processes.end_watching()
    _logger.info("Stopped.")
    return code


def _kind(settings: Settings) -> Kind:
    """The kind of workers: forked from a template if WORKER_PRELOAD is set, and if the workers that
    a template forks can become children of this process."""
    without_template = DEBUGGED_PROCESS if settings.debug_port else PROCESSES
    if not settings.worker_preload:
        return without_template
    if debug.follows_forks(settings):
        _logger.warning("WORKER_PRELOAD has no effect under a debugger: each worker loads the script itself.")
        return without_template
    if not _core.adopt_orphans():
        _logger.warning("WORKER_PRELOAD has no effect on this system: each worker loads the script itself.")
        return PROCESSES
    return PRELOADED_PROCESSES


def _watching(settings: Settings) -> Watching | None:
    """What --reload needs. Imported here, because without --reload the import would only slow down
    the start."""
    if not settings.reload:
        return None
    from .watching import Watching

    return Watching(settings)
