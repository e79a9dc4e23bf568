"""Starts the server as threads of one process (``--worker_class thread``), and ends that process.

The main thread loads the script and then waits, because ``init()`` and the script's signal handlers
must run on it. The supervising thread obeys signals, even while the script loads. ``threads.py`` owns
the threads of the front and the workers. ``start.py`` is the other worker class.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Callable, NoReturn

from .. import _core, log_config
from ..launch import listeners, stdio
from ..scripting import worker
from ..scripting.watch import NOBODY, Watch
from . import console_events, events, process_exit, shortage, signal_handlers, supervising, system_threads, titles
from .children import EXIT_FAILED, EXIT_OK, KILL_AFTER
from .state import Supervisor
from .threads import AT_ONCE, Threads, explain
from .worker_kinds import THREADS
from .workers import longest_request

if TYPE_CHECKING:
    from ..launch.settings import Settings

_logger = logging.getLogger("azmlinfsrv")

# Seconds that a thread waits for room in standard output for a log line. A line for which there is
# no room is written together with the next one (``launch/stdio.py``).
LOG_PATIENCE = 1.0


def run(settings: Settings, clients: list[socket.socket], watch: Watch = NOBODY) -> NoReturn:
    """Load the script and serve on these listeners until the server stops. Then end the process.
    ``watch`` is told how far the start of the script has come."""
    # The reader of the log may be slow or gone, and no thread may wait long for it.
    if sys.platform != "win32" and log_config.find_user_config(settings) is None:
        stdio.take_over_log(_logger).patience = LOG_PATIENCE
    titles.set_name(titles.COMMAND)
    listeners.announce(settings, clients)
    try:
        if settings.counts_metrics:
            _core.share_metrics()
        server = Server(settings, clients)
        server.catch_signals()
        server.start()
    except OSError as error:
        _logger.critical("The server cannot start: %s", shortage.explain(error))
        process_exit.at_once(EXIT_FAILED)
    except RuntimeError as error:
        # threading raises this if a thread cannot be started. It has no error number.
        _logger.critical("The server cannot start: %s", explain(error))
        process_exit.at_once(EXIT_FAILED)
    worker.log_boot()
    prepared = None
    try:
        prepared = _if_threads_are_threads(worker.prepare(settings, watch, server.reports))
        if prepared is not None and settings.warmup_samples is not None:
            worker.warm_up(prepared.script, settings.warmup_samples)
        server.wait_for_end(prepared)
    except BaseException as error:
        reason = shortage.explain(error) if isinstance(error, OSError) else "the traceback is below."
        _logger.critical("The main thread failed: %s The server ends.", reason, exc_info=True)
        process_exit.at_once(EXIT_FAILED)
    server.end(prepared)


def _if_threads_are_threads(prepared: worker.Prepared | None) -> worker.Prepared | None:
    """The script, unless it has replaced threads by greenlets. Then the log says why it cannot be served."""
    call = system_threads.replaced_by()
    if prepared is not None and call is not None:
        _logger.error(
            "The script has called %s, which replaces threads by greenlets, and locks by ones that worker threads "
            "cannot share. Use --worker_class process, or call it with thread=False.",
            call,
        )
        return None
    return prepared


class Server:
    """The main thread and the supervising thread: their methods, and the state that both use."""

    def __init__(self, settings: Settings, clients: list[socket.socket]) -> None:
        self._settings = settings
        self._clients = clients
        self._state = Supervisor(
            settings.worker_count,
            settings.graceful_timeout,
            THREADS,
            longest_request(settings.worker_timeout, settings.scoring_timeout_ms),
        )
        self._threads = Threads(settings, clients)
        self._exit_code = EXIT_OK
        # Seconds for the script's cleanup; None if the server stops at once. Set by the
        # supervising thread.
        self._seconds: float | None = None
        # Held until the supervisor has finished.
        self._has_ended = system_threads.Lock()
        self._has_ended.acquire()
        # True when the main thread has begun to run the script's cleanup, whose time
        # ``process_exit.py`` limits.
        self._main_ends = False

    # ---- The main thread

    def catch_signals(self) -> None:
        """Handle signals from here on, whatever the main thread does."""
        # The handlers do nothing, because Python also writes each signal's number to the wake-up
        # socket, which the supervising thread reads.
        signal_handlers.install(dict.fromkeys(events.SIGNALS, signal_handlers.do_nothing))
        self._threads.catch_wakeups()
        if sys.platform == "win32":
            console_events.catch()
        else:
            signal_handlers.keep_from_children(events.SIGNALS, signal_handlers.do_nothing)
            port = {client.fileno(): os.fstat(client.fileno()) for client in self._clients}
            os.register_at_fork(after_in_child=partial(_forked, port))
        if sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)

    @property
    def reports(self) -> Callable[[bytes], bool] | None:
        """Takes what the script reports for the exporters, if something is exported."""
        return self._threads.reports

    def start(self) -> None:
        """Start the supervising thread. It starts the front, so requests can wait while the script
        loads."""
        self._threads.watch_terminal()
        system_threads.start(self._supervise, "azmlinfsrv-supervisor")

    def wait_for_end(self, prepared: worker.Prepared | None) -> None:
        """Let the workers serve this script, and wait until the server has stopped."""
        while True:
            # Signal handlers of the script run on this thread, and may raise any exception at any
            # line below.
            try:
                # Set again, because an event loop in init() may have replaced the wake-up socket by
                # its own.
                self._threads.catch_wakeups()
                self._threads.script_loaded(prepared)
                self._has_ended.acquire()
            except BaseException:
                _logger.exception("A signal handler of the script failed")
            else:
                return

    def end(self, prepared: worker.Prepared | None) -> NoReturn:
        """Run the script's cleanup within its time, then end the process."""
        self._main_ends = True
        end = process_exit.ProcessExit(self._exit_code, self._seconds, AT_ONCE)
        end.begin()
        if prepared and prepared.term_handler and self._seconds is not None:
            end.call_term_handler(prepared.term_handler)
        end.finish()

    # ---- The supervising thread

    def _supervise(self) -> None:
        try:
            self._exit_code = supervising.run(self._state, self._threads, self._settings.display.progress)
            self._seconds = self._state.time_to_clean_up(time.monotonic())
            _logger.info("Stopped.")
            self._has_ended.release()
            # The main thread continues with ``end``. If it cannot, because it is still in init() or
            # in a signal handler of the script, this thread ends the process.
            system_threads.sleep(KILL_AFTER + (self._seconds or 0.0) if self._threads.is_loaded else KILL_AFTER)
            if not self._main_ends:
                process_exit.at_once(self._exit_code)
        except BaseException:
            # Without this thread nobody would obey signals or replace workers.
            _logger.critical("The supervising thread failed. The server ends.", exc_info=True)
            process_exit.at_once(EXIT_FAILED)


def _forked(listeners: dict[int, os.stat_result]) -> None:
    """Runs in each child that the script forks. The child must not write its signals to the
    server's wake-up socket, and must not keep the server's port open."""
    signal.set_wakeup_fd(-1)
    for descriptor, identity in listeners.items():
        # The front closes the listeners when it ends. Then another file may have got the
        # descriptor.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), identity):
                os.close(descriptor)
