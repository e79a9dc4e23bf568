"""The server as threads of one process (``--worker_class thread``): starts the threads, and ends or
replaces them.

The main thread loads the script and then waits, because ``init()`` and the script's signal handlers
must run on it. The front serves in a thread without the GIL. Each worker calls ``run()`` in a
thread of its own. The supervising thread obeys signals, even while the script loads. It decides by
the rules of ``state.py``, as for processes (``processes.py``), and the main thread counts as the
template of the workers. A thread cannot be killed: a worker that does not return in time is left
behind, and another one takes its place.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import logging
import os
import queue
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Callable, NoReturn

from .. import _core, log_config
from ..launch import listeners, stdio
from ..launch.settings_table import METRICS_OFF
from ..launch.terminal import Terminal
from ..scripting import worker
from ..scripting.watch import NOBODY, Watch
from . import control, events, front, process_exit, shortage, signal_handlers, supervising, titles
from .children import EXIT_FAILED, EXIT_OK, KILL_AFTER
from .events import Role
from .state import Supervisor
from .worker_kinds import THREADS
from .workers import longest_request

if TYPE_CHECKING:
    from ..launch.settings import Settings

_logger = logging.getLogger("azmlinfsrv")

# Seconds that a thread waits for room in standard output for a log line. A line for which there is
# no room is written together with the next one (``launch/stdio.py``).
LOG_PATIENCE = 1.0
# The numbers that stand for threads where events have pids. Workers are numbered from 1.
FRONT, MAIN = -1, 0
# The exit code that the supervisor is told for a thread that was left behind: the code of a killed
# process.
LEFT_BEHIND = -events.KILL

# Flag for writing to the front's socket. A script may have set SIGPIPE to its default action, and then
# writing to a front that has ended would kill the server without a message.
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGBREAK", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGWINCH")
    if hasattr(signal, name)
]
# Signals that end the server at once. SIGBREAK is for Windows, where Ctrl-Break sends it.
_AT_ONCE = {number for number in _SIGNALS if signal.Signals(number).name in ("SIGINT", "SIGQUIT", "SIGBREAK")}


def run(settings: Settings, clients: list[socket.socket], watch: Watch = NOBODY) -> NoReturn:
    """Load the script and serve on these listeners until the server stops. Then end the process.
    ``watch`` is told how far the start of the script has come."""
    # The reader of the log may be slow or gone, and no thread may wait long for it.
    if sys.platform != "win32" and log_config.find_user_config(settings) is None:
        stdio.take_over_log(_logger).patience = LOG_PATIENCE
    titles.set_name(titles.COMMAND)
    listeners.announce(settings, clients)
    try:
        if settings.metrics != METRICS_OFF:
            _core.share_metrics()
        server = Server(settings, clients)
        server.catch_signals()
        server.start()
    except OSError as error:
        _logger.critical("The server cannot start: %s", shortage.explain(error))
        process_exit.at_once(EXIT_FAILED)
    except RuntimeError as error:
        # threading raises this if a thread cannot be started. It has no error number.
        _logger.critical("The server cannot start: %s", _explain(error))
        process_exit.at_once(EXIT_FAILED)
    worker.log_boot()
    prepared = None
    try:
        prepared = worker.prepare(settings, watch, server.reports)
        server.wait_for_end(prepared)
    except BaseException as error:
        reason = shortage.explain(error) if isinstance(error, OSError) else "the traceback is below."
        _logger.critical("The main thread failed: %s The server ends.", reason, exc_info=True)
        process_exit.at_once(EXIT_FAILED)
    server.end(prepared)


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
        # Set when the supervisor has finished.
        self._has_ended = threading.Event()
        # True when the main thread has begun to run the script's cleanup, whose time
        # ``process_exit.py`` limits.
        self._main_ends = False

    # ---- The main thread

    def catch_signals(self) -> None:
        """Handle signals from here on, whatever the main thread does."""
        # The handlers do nothing, because Python also writes each signal's number to the wake-up
        # socket, which the supervising thread reads.
        signal_handlers.install(dict.fromkeys(_SIGNALS, signal_handlers.do_nothing))
        self._threads.catch_wakeups()
        if sys.platform != "win32":
            signal_handlers.keep_from_children(_SIGNALS, signal_handlers.do_nothing)
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
        threading.Thread(target=self._supervise, name="azmlinfsrv-supervisor", daemon=True).start()

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
                self._has_ended.wait()
            except BaseException:
                _logger.exception("A signal handler of the script failed")
            else:
                return

    def end(self, prepared: worker.Prepared | None) -> NoReturn:
        """Run the script's cleanup within its time, then end the process."""
        self._main_ends = True
        end = process_exit.ProcessExit(self._exit_code, self._seconds, _AT_ONCE)
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
            self._has_ended.set()
            # The main thread continues with ``end``. If it cannot, because it is still in init() or
            # in a signal handler of the script, this thread ends the process.
            time.sleep(KILL_AFTER + (self._seconds or 0.0) if self._threads.is_loaded else KILL_AFTER)
            if not self._main_ends:
                process_exit.at_once(self._exit_code)
        except BaseException:
            # Without this thread nobody would obey signals or replace workers.
            _logger.critical("The supervising thread failed. The server ends.", exc_info=True)
            process_exit.at_once(EXIT_FAILED)


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
            if number in _AT_ONCE:
                yield events.Signalled(events.INT)
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
            threading.Thread(target=self._serve, name="azmlinfsrv-front", daemon=True).start()
        except RuntimeError as error:
            return events.SpawnFailed(Role.FRONT, _explain(error))
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
            return events.SpawnFailed(Role.WORKER, _explain(error), MAIN)
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


def _explain(error: RuntimeError) -> str:
    """Says why a thread cannot be started, and the remedy."""
    return f"{error}. {shortage.PROCESSES}"


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
