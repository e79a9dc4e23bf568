"""The threads of the front and the workers (``--worker_class thread``): starts them, and ends or
replaces workers.

The front serves in a thread without the GIL. Each worker calls ``run()`` in a thread of its own. The
supervising thread decides by the rules of ``state.py``, as for processes (``processes.py``), and the
main thread (``start_threads.py``) counts as the template of the workers. A thread cannot be killed: a
worker that does not return in time is left behind, and another one takes its place.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import _core
from ..launch.terminal import Terminal
from ..scripting import worker
from . import control, events, front, shortage, system_threads
from .children import EXIT_FAILED, EXIT_OK
from .events import Role

if TYPE_CHECKING:
    from ..launch.settings import Settings

_logger = logging.getLogger("azmlinfsrv")

# The numbers that stand for threads where events have pids. Workers are numbered from 1.
FRONT, MAIN = -1, 0
# The exit code that the supervisor is told for a thread that was left behind: the code of a killed
# process.
LEFT_BEHIND = -events.KILL

# Flag for writing to the front's socket. A script may have set SIGPIPE to its default action, and then
# writing to a front that has ended would kill the server without a message.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
# Signals that end the server at once.
AT_ONCE = {getattr(signal, name) for name in ("SIGINT", "SIGQUIT") if hasattr(signal, name)}
# Windows: Ctrl-Break, which is all that one program can send another to end it. It counts as TERM.
BREAK = getattr(signal, "SIGBREAK", None)


class Threads:
    """The threads of the front and the workers: makes events from them, and performs the
    supervisor's actions.

    The supervising thread calls all methods except those under "For every thread" and "For the main
    thread".
    """

    def __init__(self, settings: Settings, clients: list[socket.socket]) -> None:
        self._settings = settings
        self._clients = clients
        self._channel = _core.ThreadChannel()
        self.reports = self._channel.report if settings.exports_telemetry else None
        self._line, self._line_of_front = socket.socketpair()
        self._lines = control.Lines()
        # Carries one byte for each signal, with its number, and a zero for each event in ``_told``.
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self._selector.register(self._line, selectors.EVENT_READ)
        self._terminal = Terminal()
        # Events that other threads report to the supervising thread.
        self._told: queue.SimpleQueue[events.Event] = queue.SimpleQueue()
        self._prepared: worker.Prepared | None = None
        self._numbers = itertools.count(1)
        # The running workers by number. Workers that were left behind are not in it.
        self._workers: dict[int, worker.Retirement] = {}
        self._is_front_here = False

    # ---- For the main thread

    def catch_wakeups(self) -> None:
        """Have Python write the number of each signal to the wake-up socket."""
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)

    def watch_terminal(self) -> None:
        """Start the thread that notices the loss of the terminal."""
        if self._terminal.descriptor is not None:
            threading.Thread(target=self._terminal.watch, name="azmlinfsrv-terminal", daemon=True).start()

    def script_loaded(self, prepared: worker.Prepared | None) -> None:
        """Report that the main thread has loaded the script, or has failed to (None). May be called
        again."""
        if self._prepared is None and prepared is not None:
            worker.log_scoring_timeout(self._settings)
            self._prepared = prepared
        self._tell(events.Exited(MAIN, worker.EXIT_CANNOT_START) if prepared is None else events.Loaded(MAIN))

    @property
    def is_loaded(self) -> bool:
        """True if the main thread has loaded the script."""
        return self._prepared is not None

    # ---- For every thread

    def _tell(self, event: events.Event) -> None:
        """Report an event to the supervising thread, and wake it."""
        self._told.put(event)
        # BlockingIOError: the socket is full of bytes that are not read yet. They wake the thread
        # as well.
        with contextlib.suppress(BlockingIOError):
            self._wake_writer.send(b"\0")

    def _serve(self) -> None:
        """The main function of the front's thread."""
        code = EXIT_OK
        try:
            front.serve(self._settings, self._clients, self._channel, self._line_of_front)
        except OSError as error:
            _logger.critical("The front failed: %s The server ends.", shortage.explain(error))
            code = EXIT_FAILED
        except BaseException:
            _logger.critical("The front has raised an exception.", exc_info=True)
            code = EXIT_FAILED
        self._tell(events.Exited(FRONT, code))

    def _work(self, number: int, retirement: worker.Retirement, prepared: worker.Prepared) -> None:
        """The main function of a worker's thread."""
        # The thread was started as a daemon, so that Python does not wait for it if it was left
        # behind. The flag is cleared here, because threads that run() starts would inherit it, and
        # Python must wait for those.
        threading.current_thread()._daemonic = False  # type: ignore[attr-defined]
        code = EXIT_OK
        try:
            _logger.info("Worker with pid %d ready for serving traffic (thread %d)", os.getpid(), number)
            script, swagger, _, init_seconds = prepared
            _core.set_init_duration(init_seconds)
            _core.work(
                self._settings, front=self._channel, worker=number, script=script, swagger=swagger, retiring=retirement
            )
        except BaseException as error:
            _logger.error("Worker thread %d failed and ends: %s", number, error, exc_info=True)
            code = EXIT_FAILED
        self._tell(events.Exited(number, code))

    # ---- What happens

    def wait(self, until: float | None) -> Iterator[events.Event]:
        """Sleep until something happens or the time ``until`` has come. Yields the events."""
        ready = {key.fileobj for key, _ in self._selector.select(self._seconds_until(until))}
        # The front's reports are handled before the ends of workers, because a worker that the
        # front has retired may have ended since the report.
        if self._line in ready:
            yield from self._read_line()
        if self._wake_reader in ready:
            yield from self._read_wakeups()

    @staticmethod
    def _seconds_until(until: float | None) -> float | None:
        return None if until is None else max(0.0, until - time.monotonic())

    def _read_line(self) -> Iterator[events.Event]:
        received = b""
        with contextlib.suppress(OSError):
            received = self._line.recv(65536)
        if not received:
            # The front is ending. Its thread reports that by ``_tell``.
            self._selector.unregister(self._line)
        yield from control.read_all(self._lines, received)

    def _read_wakeups(self) -> Iterator[events.Event]:
        for number in self._wake_reader.recv(4096):
            if number in AT_ONCE:
                yield events.Signalled(events.INT)
            elif number == BREAK:
                yield events.Signalled(events.TERM)
            elif number == getattr(signal, "SIGHUP", None) and self._terminal.has_hung_up():
                yield events.HungUp(self._terminal.is_ignored)
            elif number:
                yield events.Signalled(number)
        with contextlib.suppress(queue.Empty):
            while True:
                yield from self._ended(self._told.get_nowait())

    def _ended(self, event: events.Event) -> Iterator[events.Event]:
        """Yields the event as it is, or ``Returned`` if it is the end of a thread that was left
        behind."""
        if isinstance(event, events.Exited):
            if event.pid == FRONT:
                is_expected, self._is_front_here = self._is_front_here, False
            elif event.pid == MAIN:
                is_expected = True
            else:
                is_expected = self._workers.pop(event.pid, None) is not None
            if not is_expected:
                yield events.Returned(event.pid)
                return
        yield event

    # ---- Performing

    def perform(self, action: events.Action) -> events.Event | None:
        """Perform an action. Returns the event that this has caused, if any."""
        if isinstance(action, events.SpawnFront):
            return self._spawn_front()
        if isinstance(action, events.SpawnWorker):
            return self._spawn_worker()
        if isinstance(action, events.SpawnTemplate):
            # The main thread is the template, and loads the script in any case.
            return events.Spawned(MAIN, Role.TEMPLATE)
        if isinstance(action, events.ReleaseTemplate):
            # Reported at once, because the main thread runs the script's cleanup only after all
            # others have ended.
            return events.Exited(MAIN, EXIT_OK)
        if isinstance(action, events.Kill):
            return self._kill(action.pid, action.number)
        if isinstance(action, events.TellFront):
            # OSError: the front is ending. Its thread reports that by ``_tell``.
            with contextlib.suppress(OSError):
                self._line.sendall(control.write(action.order), _NO_SIGNAL)
            return None
        raise TypeError(f"nobody performs {action!r}")

    def abandon(self) -> None:
        """Does nothing, because all threads end with the process."""

    def _spawn_front(self) -> events.Event:
        try:
            system_threads.start(self._serve, "azmlinfsrv-front")
        except RuntimeError as error:
            return events.SpawnFailed(Role.FRONT, explain(error))
        self._is_front_here = True
        return events.Spawned(FRONT, Role.FRONT)

    def _spawn_worker(self) -> events.Event:
        if self._prepared is None:
            return events.SpawnFailed(Role.WORKER, "The script is not loaded.", MAIN)
        number = next(self._numbers)
        retirement = worker.Retirement()
        arguments = (number, retirement, self._prepared)
        try:
            threading.Thread(target=self._work, args=arguments, name=f"worker-{number}", daemon=True).start()
        except RuntimeError as error:
            return events.SpawnFailed(Role.WORKER, explain(error), MAIN)
        self._workers[number] = retirement
        return events.Spawned(number, Role.WORKER, MAIN)

    def _kill(self, number: int, signalled: int) -> events.Event | None:
        """Leave a thread behind in place of SIGKILL. Any other signal asks a worker to exit after
        its request."""
        if signalled != events.KILL:
            if number in self._workers:
                self._workers[number].ask()
            return None
        if number == FRONT and self._is_front_here:
            self._is_front_here = False
        elif self._workers.pop(number, None) is None:
            return None
        return events.Exited(number, LEFT_BEHIND)


def explain(error: RuntimeError) -> str:
    """Says why a thread cannot be started, and the remedy."""
    return f"{error}. {shortage.PROCESSES}"
