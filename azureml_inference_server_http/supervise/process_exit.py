"""The end of a process that ran the user's script: runs the script's cleanup within a time limit.

The order is: the script's handler for SIGTERM, threads that are not daemons, handlers of
``atexit``. The log names what is not finished when the time is over. Runs in workers, in templates
(WORKER_PRELOAD) and in the server with worker threads, at the very end and on the main thread.
"""

from __future__ import annotations

import atexit
import contextlib
import enum
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection
from typing import Any, Callable, NoReturn

from ..launch.stdio import finish_standard_streams
from . import signal_handlers

# Seconds for the threads of a script that could not be started.
FAILED_START = 3.0
# Seconds that a process has to finish when the server stops at once (INT, QUIT).
HURRY = 0.25
# Seconds that handlers of atexit which have not been called get after the time is over, and seconds
# for the log.
LAST_MOMENT = 1.0

_logger = logging.getLogger("azmlinfsrv")


class _Stage(enum.Enum):
    """What the process is waiting for."""

    TERM_HANDLER = enum.auto()
    THREADS = enum.auto()
    EXIT_HANDLERS = enum.auto()


class ProcessExit:
    """The time limit for the end of this process, and the thread that enforces it."""

    def __init__(self, code: int, seconds: float | None, hurry: Collection[int]) -> None:
        """The process will exit with ``code`` after ``seconds`` at most, or at once if that is
        None. One of the signals ``hurry`` means that the time is over."""
        self._code = code
        self._hurry = hurry
        self._began = time.monotonic()
        self._is_hurried = seconds is None
        self._seconds = HURRY if seconds is None else max(seconds, HURRY)
        self._stage = _Stage.THREADS
        # Python writes signal numbers to this socket pair, even while the main thread is busy. None
        # if there is no descriptor left.
        self._signals: tuple[socket.socket, socket.socket] | None = None

    def begin(self) -> None:
        """Start the time limit. Call this before waiting for any part of the script's cleanup."""
        self._watch_signals()
        # Python calls the handler that was registered last first, so this notes that exit handlers
        # have begun.
        atexit.register(self._enter, _Stage.EXIT_HANDLERS)
        self._let_kernel_end(self._seconds)
        watch = threading.Thread(target=self._watch, name="azmlinfsrv-exit", daemon=True)
        try:
            watch.start()
        except RuntimeError as error:
            _logger.warning("Nothing limits the end of process %d but a signal: %s", os.getpid(), error)

    def call_term_handler(self, handler: Callable[..., Any]) -> None:
        """Call the script's handler for SIGTERM. Its exceptions do not change how the process
        ends."""
        self._enter(_Stage.TERM_HANDLER)
        try:
            handler(signal.SIGTERM, sys._getframe())
        except SystemExit:
            # The handler wants the process to end, and the process does end.
            pass
        except BaseException:
            _logger.exception("The script's handler for SIGTERM failed")
        self._enter(_Stage.THREADS)

    def finish(self) -> NoReturn:
        """Do the part of Python's exit that the script can see, and then end the process.

        The rest is left out, because threads that still run may crash it. Not needed where the main
        module returns.
        """
        for step in (_wait_for_threads, atexit._run_exitfuncs):
            try:
                step()
            except BaseException:
                _logger.exception("The end of the script failed")
        at_once(self._code)

    def _enter(self, stage: _Stage) -> None:
        self._stage = stage

    def _watch_signals(self) -> None:
        signal_handlers.install(dict.fromkeys({signal.SIGTERM, *self._hurry}, signal_handlers.do_nothing))
        try:
            reader, writer = socket.socketpair()
        except OSError as error:
            _logger.debug("The end cannot be hurried by a signal: %s", error)
            return
        self._signals = reader, writer
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        if hasattr(os, "register_at_fork"):
            # Signals to a child are not for this process.
            os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def _let_kernel_end(self, seconds: float) -> None:
        """Make the kernel end this process a few seconds later than this, even if native code holds
        the GIL."""
        if not hasattr(signal, "setitimer"):
            return
        with contextlib.suppress(ValueError):
            # ValueError: this is not the main thread, which has set the handler already.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, seconds + 3 * LAST_MOMENT)

    def _watch(self) -> None:
        """The thread: wait until the time is over, and end the process then."""
        is_hurried = self._wait()
        self._let_kernel_end(0)
        spent = time.monotonic() - self._began
        limit = "the server stops at once" if is_hurried else "--graceful_timeout"
        _logger.warning("The script had %.1f s for its end (%s). Left undone: %s.", spent, limit, self._undone())
        if self._stage is not _Stage.EXIT_HANDLERS:
            last = threading.Thread(target=atexit._run_exitfuncs, name="azmlinfsrv-atexit", daemon=True)
            last.start()
            last.join(LAST_MOMENT)
            if last.is_alive():
                _logger.warning("Left undone as well: %s.", self._undone())
        at_once(self._code)

    def _wait(self) -> bool:
        """Wait until the time is over. True if the server stops at once."""
        until = self._began + self._seconds
        while (rest := until - time.monotonic()) > 0:
            if self._signals is None:
                time.sleep(rest)
                continue
            self._signals[0].settimeout(rest)
            try:
                numbers = self._signals[0].recv(64)
            except socket.timeout:
                break
            except OSError:
                # The script has closed the socket.
                self._signals = None
                continue
            if not numbers:
                self._signals = None
            if any(number in self._hurry for number in numbers):
                return True
        return self._is_hurried

    def _undone(self) -> str:
        if self._stage is _Stage.TERM_HANDLER:
            return "its handler for SIGTERM"
        if self._stage is _Stage.EXIT_HANDLERS:
            return "a handler of atexit"
        main = threading.main_thread()
        names = [thread.name for thread in threading.enumerate() if not (thread.daemon or thread is main)]
        return f"threads {', '.join(names)}" if names else "waiting for its threads"


def _wait_for_threads() -> None:
    # Python's own function for this. It also tells executors to finish.
    threading._shutdown()  # type: ignore[attr-defined]


def at_once(code: int) -> NoReturn:
    """End this process without Python's exit, but write log records and buffers first."""
    logging.shutdown()
    finish_standard_streams()
    os._exit(code)
