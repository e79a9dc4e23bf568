"""The server as threads of one process, ``--worker_class thread``: who runs where, and who ends whom.

The main thread loads the script and then waits, so that ``init()`` and signal handlers of the script are where they
always were. The front serves in a thread without the GIL, each worker calls ``run()`` in one of its own, and one more
supervises them, so that signals are obeyed while the script loads. A thread cannot be killed: one that does not return
in time is left behind, and another takes its place. ``process.py`` is the same for processes.
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
from functools import partial
from typing import TYPE_CHECKING, Callable, NoReturn

from . import _core, ending, front, listeners, log_config, shortage, signal_handlers, stdio, titles, worker
from .supervisor import EXIT_CANNOT_START, EXIT_FRONT_FAILED, EXIT_OK, FRONT_GRACE, KILL_AFTER, SPAWN_AGAIN
from .terminal import GONE, Terminal

if TYPE_CHECKING:
    from .settings import Settings

_logger = logging.getLogger("azmlinfsrv")

# So many times WORKER_COUNT threads may be left behind before the log says that this cannot go on.
MANY_LEFT_BEHIND = 8
# Seconds that a log record waits for a reader before it is left to the next one.
LOG_PATIENCE = 1.0

_SERVING, _DRAINING, _STOPPING = "serving", "draining", "stopping"


def run(settings: Settings, clients: list[socket.socket]) -> NoReturn:
    """Load the script and serve on these listeners until the server stops; ends the process with its exit code."""
    # A reader of the log may be slow or gone: no thread may wait for that for long.
    if sys.platform != "win32" and log_config.find_user_config(settings) is None:
        stdio.take_over_log(_logger).patience = LOG_PATIENCE
    titles.set_name(titles.COMMAND)
    listeners.announce(settings)
    try:
        supervisor = _Supervisor(settings, clients)
        supervisor.catch_signals()
        supervisor.start()
    except OSError as error:
        _logger.critical("The server cannot start: %s", shortage.explain(error))
        ending.at_once(EXIT_FRONT_FAILED)
    except RuntimeError as error:
        # From threading, which has no error number.
        _logger.critical("The server cannot start: %s. %s", error, shortage.PROCESSES)
        ending.at_once(EXIT_FRONT_FAILED)
    worker.log_boot()
    prepared = None
    try:
        prepared = worker.prepare(settings)
        supervisor.wait_for_end(prepared)
    except BaseException as error:
        reason = shortage.explain(error) if isinstance(error, OSError) else "an error that nobody expected."
        _logger.critical("The main thread failed: %s The server ends.", reason, exc_info=True)
        ending.at_once(EXIT_FRONT_FAILED)
    supervisor.end(prepared)


class _Supervisor:
    """Starts the threads, replaces workers, and turns signals into actions.

    ``start`` begins a thread; from then on everything but the methods named in ``run`` happens in it.
    """

    def __init__(self, settings: Settings, clients: list[socket.socket]) -> None:
        self._settings = settings
        self._clients = clients
        self._hub = _core.Hub()
        self._line, self._line_of_front = socket.socketpair()
        self._line_text = b""
        # The number of a signal, or a zero for a call in the queue.
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_writer.setblocking(False)
        self._terminal = Terminal()
        # What other threads ask this one to do.
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._prepared: worker.Prepared | None = None
        self._numbers = itertools.count(1)
        self._worker_count = settings.worker_count
        self._workers: dict[int, worker.Retirement] = {}
        self._left_behind: set[int] = set()
        self._phase = _SERVING
        self._exit_code = EXIT_OK
        self._front_has_ended = False
        # When more workers are to be started; when the threads have had all the time there is for their end.
        self._fill_up_at: float | None = None
        # The log has it that the system refuses another thread.
        self._refusal_is_told = False
        self._give_up_at: float | None = None
        # When the graceful timeout is over that TERM has begun.
        self._graceful_until = 0.0
        self._has_ended = threading.Event()
        # The main thread has come to the end of the script, which limits itself.
        self._main_ends = False
        self._on_signal: dict[int, Callable[[], None]] = {
            getattr(signal, name): action
            for name, action in {
                "SIGTERM": self._drain,
                "SIGINT": self._stop,
                "SIGQUIT": self._stop,
                "SIGBREAK": self._stop,
                "SIGHUP": self._hang_up_or_refuse,
                "SIGTTIN": self._add_worker,
                "SIGTTOU": self._remove_worker,
                "SIGUSR1": signal_handlers.do_nothing,
                "SIGWINCH": signal_handlers.do_nothing,
            }.items()
            if hasattr(signal, name)
        }

    # ---- For the main thread

    def catch_signals(self) -> None:
        """Obey signals from here on, whatever the main thread does."""
        # Handlers do nothing: the numbers arrive through the wake-up socket.
        signal_handlers.install(dict.fromkeys(self._on_signal, signal_handlers.do_nothing))
        self.catch_wakeups()
        if sys.platform != "win32":
            signal_handlers.keep_from_children(self._on_signal, signal_handlers.do_nothing)
            port = {client.fileno(): os.fstat(client.fileno()) for client in self._clients}
            os.register_at_fork(after_in_child=partial(_forked, port))
        if sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)

    def catch_wakeups(self) -> None:
        """Let signals write to the wake-up socket."""
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)

    def start(self) -> None:
        """Start the front, which lets requests wait, and the thread that supervises."""
        if self._terminal.descriptor is not None:
            threading.Thread(target=self._terminal.watch, name="azmlinfsrv-terminal", daemon=True).start()
        threading.Thread(target=self._serve, name="azmlinfsrv-front", daemon=True).start()
        threading.Thread(target=self._supervise, name="azmlinfsrv-supervisor", daemon=True).start()

    def post(self, call: Callable[[], None]) -> None:
        """Have this called by the supervising thread. Every thread may do so."""
        self._calls.put(call)
        # Full of bytes that nobody has read yet, it wakes the thread as well.
        with contextlib.suppress(BlockingIOError):
            self._wake_writer.send(b"\0")

    def wait_for_end(self, prepared: worker.Prepared | None) -> None:
        """Serve this script until the server has stopped."""
        while True:
            # Handlers for signals that the script has set run in here, and may raise anything at any time.
            try:
                # init() may have used an event loop, which takes the wake-up socket away.
                self.catch_wakeups()
                self.post(partial(self.script_loaded, prepared))
                self._has_ended.wait()
            except BaseException:
                _logger.exception("A signal handler of the script failed")
            else:
                return

    def end(self, prepared: worker.Prepared | None) -> NoReturn:
        """What the script has to do at its end, and the end of the process."""
        self._main_ends = True
        stops_at_once = [number for number, action in self._on_signal.items() if action == self._stop]
        end = ending.Ending(self._exit_code, self._time_to_clean_up(), stops_at_once)
        end.begin()
        if prepared and prepared.term_handler and self._phase == _DRAINING:
            end.call_term_handler(prepared.term_handler)
        end.finish()

    # ---- The front and the workers

    def _serve(self) -> None:
        """The front's thread."""
        failure: BaseException | None = None
        try:
            front.serve(self._settings, self._clients, self._hub, self._line_of_front)
        except BaseException as error:  # a panic of the core is no Exception
            failure = error
        self.post(partial(self._front_ended, failure))

    def _work(self, number: int, retirement: worker.Retirement, prepared: worker.Prepared) -> None:
        """A worker's thread."""
        # A daemon, as it may be left behind. Threads that run() starts must not inherit that: they are waited for.
        threading.current_thread()._daemonic = False  # type: ignore[attr-defined]
        _logger.info("Worker with pid %d ready for serving traffic (thread %d)", os.getpid(), number)
        failure: BaseException | None = None
        try:
            script, swagger, _ = prepared
            _core.work(
                self._settings, front=self._hub, worker=number, script=script, swagger=swagger, retiring=retirement
            )
        except BaseException as error:
            failure = error
        self.post(partial(self._worker_ended, number, failure))

    # ---- The supervising thread

    def _supervise(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wake_reader, selectors.EVENT_READ, self._read_wakeups)
                selector.register(self._line, selectors.EVENT_READ, partial(self._read_line, selector))
                while not self._is_over():
                    for key, _ in selector.select(self._seconds_to_wait()):
                        key.data()
                    self._do_what_is_due()
            if not self._front_has_ended:
                _logger.error("The front did not end in time.")
            _logger.info("Stopped.")
        except BaseException:
            _logger.critical("The supervisor failed.", exc_info=True)
            self._exit_code = EXIT_FRONT_FAILED
        self._has_ended.set()
        # The main thread goes on with ``end``, unless it is still in init() or in a signal handler of the script.
        time.sleep(KILL_AFTER + (self._time_to_clean_up() or 0.0) if self._prepared else KILL_AFTER)
        if not self._main_ends:
            ending.at_once(self._exit_code)

    def _time_to_clean_up(self) -> float | None:
        """Seconds that are left for what the script does at its end; None if the server stops at once."""
        return max(0.0, self._graceful_until - time.monotonic()) if self._phase == _DRAINING else None

    def _is_over(self) -> bool:
        if self._front_has_ended and not self._workers:
            return True
        return self._give_up_at is not None and time.monotonic() >= self._give_up_at

    def _seconds_to_wait(self) -> float | None:
        planned = [at for at in (self._fill_up_at, self._give_up_at) if at is not None]
        return max(0.0, min(planned) - time.monotonic()) if planned else None

    def _do_what_is_due(self) -> None:
        if self._fill_up_at is not None and time.monotonic() >= self._fill_up_at:
            self._fill_up_at = None
            self._fill_up()

    def _read_wakeups(self) -> None:
        for number in self._wake_reader.recv(4096):
            if number in self._on_signal:
                self._on_signal[number]()
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()()

    def _read_line(self, selector: selectors.BaseSelector) -> None:
        """What the front says; ``src/control.rs`` lists the verbs. Nothing follows from ``ready``."""
        received = b""
        with contextlib.suppress(OSError):
            received = self._line.recv(65536)
        if not received:
            selector.unregister(self._line)
        *lines, self._line_text = (self._line_text + received).split(b"\n")
        for line in lines:
            verb, _, rest = line.decode("utf-8", "replace").partition(" ")
            number, _, text = rest.partition(" ")
            if verb == "kill" and number.isdigit():
                self._leave_behind(int(number), text)

    def _tell_front(self, line: str) -> None:
        # Its end is told by its thread.
        with contextlib.suppress(OSError):
            self._line.sendall(f"{line}\n".encode())

    def script_loaded(self, prepared: worker.Prepared | None) -> None:
        """The main thread has come to the end of init(). It may say so again."""
        if self._prepared is not None:
            return
        if prepared is None:
            _logger.error("The scoring script could not be started, see above.")
            self._stop(EXIT_CANNOT_START)
            return
        self._prepared = prepared
        worker.log_scoring_timeout(self._settings)
        self._fill_up()

    def _fill_up(self) -> None:
        """Start as many workers as are missing."""
        while self._prepared and self._phase != _STOPPING and len(self._staying()) < self._worker_count:
            number = next(self._numbers)
            retirement = worker.Retirement()
            arguments = (number, retirement, self._prepared)
            try:
                threading.Thread(target=self._work, args=arguments, name=f"worker-{number}", daemon=True).start()
            except RuntimeError as error:
                if not self._refusal_is_told:
                    _logger.error(
                        "Cannot start a worker thread: %s. %s Trying again every second.", error, shortage.PROCESSES
                    )
                self._refusal_is_told = True
                self._fill_up_at = time.monotonic() + SPAWN_AGAIN
                return
            self._refusal_is_told = False
            self._workers[number] = retirement

    def _staying(self) -> list[int]:
        return [number for number, retirement in self._workers.items() if not retirement()]

    def _leave_behind(self, number: int, reason: str) -> None:
        """The front has answered for this thread's call, which does not return."""
        if self._workers.pop(number, None) is None:
            return
        self._left_behind.add(number)
        _logger.critical(
            "Worker thread %d %s. A thread cannot be killed: another one takes its place, and this one ends when its "
            "call returns.",
            number,
            reason,
        )
        if len(self._left_behind) >= MANY_LEFT_BEHIND * self._worker_count:
            _logger.error(
                "%d threads are stuck in calls of run(). They keep memory, and perhaps locks: restart the server, or "
                "use --worker_class process, whose workers can be killed.",
                len(self._left_behind),
            )
        self._tell_front(f"exited {number} did not return in time")
        self._fill_up()

    def _worker_ended(self, number: int, failure: BaseException | None) -> None:
        if number in self._left_behind:
            self._left_behind.discard(number)
            _logger.info("The call of worker thread %d has returned, and the thread has ended.", number)
            return
        retirement = self._workers.pop(number)
        self._tell_front(f"exited {number} ended unexpectedly")
        # Without a failure it ends because it was let go, or because the front has ended.
        is_expected = failure is None and (retirement() or self._phase != _SERVING)
        if is_expected or self._phase == _STOPPING or self._front_has_ended:
            return
        _logger.error("Worker thread %d ended unexpectedly.", number, exc_info=failure)
        self._fill_up_at = time.monotonic() + SPAWN_AGAIN

    def _front_ended(self, failure: BaseException | None) -> None:
        self._front_has_ended = True
        self._give_up_at = time.monotonic() + KILL_AFTER
        if failure is not None or self._phase == _SERVING:
            if isinstance(failure, OSError):
                _logger.critical("The front failed: %s The server ends.", shortage.explain(failure))
            else:
                _logger.critical("The front failed. The server ends.", exc_info=failure)
            self._exit_code = EXIT_FRONT_FAILED

    # ---- Signals

    def _drain(self) -> None:
        if self._phase == _SERVING:
            _logger.info("Stopping: finishing the requests that are queued or running.")
            self._phase = _DRAINING
            self._graceful_until = time.monotonic() + self._settings.graceful_timeout
            self._give_up_at = self._graceful_until + FRONT_GRACE
            self._tell_front("drain")

    def _stop(self, code: int = EXIT_OK) -> None:
        if self._phase != _STOPPING:
            self._phase = _STOPPING
            self._exit_code = code
            self._give_up_at = time.monotonic() + FRONT_GRACE
            self._tell_front("stop")

    def _hang_up_or_refuse(self) -> None:
        if self._terminal.has_hung_up():
            if not self._terminal.is_ignored:
                _logger.warning(GONE)
                self._drain()
            return
        _logger.warning("HUP does nothing: replacing workers one by one needs --worker_class process.")

    def _add_worker(self) -> None:
        self._worker_count += 1
        self._fill_up()

    def _remove_worker(self) -> None:
        if self._worker_count > 1:
            self._worker_count -= 1
            for number in self._staying()[self._worker_count :]:
                # It may not be connected yet: then it finds this out by itself.
                self._workers[number].ask()
                self._tell_front(f"retire {number}")


def _forked(listeners: dict[int, os.stat_result]) -> None:
    """Runs in children that the script forks: they must neither tell the server of their signals nor keep its port."""
    signal.set_wakeup_fd(-1)
    for descriptor, identity in listeners.items():
        # The front closes them at its end; then the number may be that of another file.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), identity):
                os.close(descriptor)
