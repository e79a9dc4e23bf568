"""Sockets, forks, signals and waiting: the only file that touches the operating system for the process model.

Owns the supervisor's loop: the world becomes events for ``supervisor.Supervisor``, whose actions are performed here.
Runs in the launcher, which becomes the supervisor when the listeners are open; ``_fork`` is where the front and the
workers begin. One thread for ever: nothing here may start another.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, Callable

from . import ending, events, listeners, log_config, reports, shortage, signal_handlers, stdio, titles
from .roster import longest_request
from .supervisor import EXIT_FRONT_FAILED, Supervisor
from .terminal import Terminal
from .worker_socket import WorkerSocket

if TYPE_CHECKING:
    from .settings import Settings
    from .worker import Prepared

_logger = logging.getLogger("azmlinfsrv")

# Seconds that a worker waits for a reader of its log before it goes on without.
LOG_PATIENCE = 1.0
# Milliseconds between two looks at stopped workers: not every system sends SIGCHLD when one goes on.
LOOK_AGAIN = 500
# Python's own functions. A preloaded script may have gevent or eventlet replace them, which then would wait for the
# supervisor's children, and run the script's greenlets in the supervisor.
_os_fork, _os_waitpid, _os_poll = os.fork, os.waitpid, select.poll
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# What the front sends if signals stay unread (``src/nudge.rs``). Says nothing but: read them.
_NUDGE = signal.SIGURG
_HANDLED = (
    *_ENDING,
    _NUDGE,
    *(signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD, signal.SIGUSR1, signal.SIGWINCH),
)


class _SpawnFailed(Exception):
    """The system refused another process, or what it needs; the text says why."""


class _ChildEnded(Exception):
    """Carries a forked child's exit code out of the supervisor's loop, which is not the child's business any more."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run(settings: Settings, clients: list[socket.socket]) -> int:
    """Start the front and the workers behind these listeners, and supervise them until the server stops.

    Returns the exit code of this process: of the command in the supervisor, and in a forked child of that child.
    """
    # Before the first record: a reader that has gone is no error.
    log = stdio.take_over_log(_logger) if log_config.find_user_config(settings) is None else None
    titles.set_name(titles.COMMAND)
    listeners.announce(settings)
    try:
        loop = _Loop(settings, clients, log)
    except OSError as error:
        _logger.critical("The server cannot start: %s", shortage.explain(error))
        return EXIT_FRONT_FAILED
    try:
        return loop.run()
    except _ChildEnded as child:
        return child.code


# ---- Supervising


class _Loop:
    """The supervisor's loop and the descriptors it owns."""

    def __init__(
        self, settings: Settings, clients: list[socket.socket], log: stdio.PatientStream | None = None
    ) -> None:
        self.pid = os.getpid()
        self._settings = settings
        self._clients = clients
        self._worker_socket = WorkerSocket()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._terminal = Terminal()
        # The line to the front of the moment, and what it said that does not end in a newline yet.
        self._front: socket.socket | None = None
        self._front_text = b""
        self._state = Supervisor(
            settings.worker_count,
            settings.graceful_timeout,
            settings.worker_preload,
            longest_request(settings.worker_timeout, settings.scoring_timeout_ms),
            reports.is_debugged,
        )
        self._exit_code: int | None = None
        # For the titles of workers.
        self._worker_numbers = itertools.count(1)
        # A child that is being forked is a front or a worker, not one that a preloaded script forks.
        self._is_forking = False
        # With WORKER_PRELOAD: the script, loaded here and inherited by every worker; and whether init() runs just now.
        self._prepared: Prepared | None = None
        self._is_preloading = False
        self._is_attending = False
        # Signals that came in that time and can wait until it is over.
        self._postponed: list[int] = []
        # What the log is written to, unless a logging.json of the user's own decides on that.
        self._log = log

    def run(self) -> int:
        """Supervise until a ``Finish`` action; its code."""
        self._catch_signals()
        os.register_at_fork(after_in_child=self._forked)
        # After that: a signal to a newborn child must not be told to the supervisor, with which it shares the socket
        # that signal numbers are written to.
        signal_handlers.keep_from_children(_HANDLED, signal_handlers.do_nothing, self._attend)
        self._handle(events.Started())
        while self._exit_code is None:
            self._wait()
            self._handle(events.Tick())
        _logger.info("Stopped.")
        if self._settings.worker_preload:
            seconds = self._state.time_to_clean_up(time.monotonic()) if self._exit_code == 0 else ending.FAILED_START
            ending.Ending(self._exit_code, seconds, {signal.SIGINT, signal.SIGQUIT}).begin()
        return self._exit_code

    def _catch_signals(self) -> None:
        # Handlers do nothing: the numbers arrive through the wake-up socket, in order, when the loop has time for them.
        signal_handlers.install(dict.fromkeys(_HANDLED, signal_handlers.do_nothing))
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)

    def _wait(self) -> None:
        """Sleep until something happens, and handle it."""
        wakeup = self._state.next_wakeup()
        # Rounded up, or the last millisecond would be spent in a busy loop.
        timeout = None if wakeup is None else max(0, math.ceil((wakeup - time.monotonic()) * 1000))
        one_is_stopped = any(worker.stopped for worker in self._state.workers.values())
        if one_is_stopped:
            timeout = LOOK_AGAIN if timeout is None else min(timeout, LOOK_AGAIN)
        # Not select(): a preloaded script may have opened more files than that can watch.
        poll = _os_poll()
        for source in (self._wake_reader, self._front):
            if source is not None:
                poll.register(source, select.POLLIN)
        if self._terminal.descriptor is not None:
            poll.register(self._terminal.descriptor, 0)
        if self._log is not None and self._log.is_waiting:
            poll.register(self._log.descriptor, select.POLLOUT)
        ready = {descriptor for descriptor, _ in poll.poll(timeout)}
        if self._front is not None and self._front.fileno() in ready:
            self._read_front()
        if self._terminal.descriptor in ready:
            self._terminal.look()
        if self._wake_reader.fileno() in ready:
            self._read_signals()
        if self._log is not None and self._log.descriptor in ready:
            self._log.flush()
        if one_is_stopped:
            self._reap()

    def _read_signals(self) -> None:
        try:
            numbers = self._wake_reader.recv(4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGCHLD:
                self._reap()
            elif number == _NUDGE:
                continue
            elif number == signal.SIGHUP and self._terminal.has_hung_up():
                self._handle(events.HungUp(self._terminal.is_ignored))
            elif self._is_preloading and number not in _ENDING:
                self._postponed.append(number)
            else:
                self._handle(events.Signalled(number))

    def _reap(self) -> None:
        while True:
            # While init() runs here, other children are the script's, which waits for them itself.
            child = self._state.front if self._is_preloading else -1
            if child is None:
                return
            try:
                # Stops and continuations for a debugger are not told here, but to the debugger.
                pid, status = _os_waitpid(child, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # What a front said before it died still counts.
            self._read_front()
            self._handle(reports.of_child(pid, status))

    def _read_front(self) -> None:
        if self._front is None:
            return
        try:
            received = self._front.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            # It is dying; SIGCHLD tells the rest.
            self._front.close()
            self._front = None
            return
        *lines, self._front_text = (self._front_text + received).split(b"\n")
        for line in lines:
            self._handle_line(line.decode("utf-8", "replace"))

    def _handle_line(self, line: str) -> None:
        event = reports.of_front(line)
        if event is None:
            _logger.error("The front said something that makes no sense: %r", line)
        else:
            self._handle(event)

    # ---- Performing

    def _handle(self, event: events.Event) -> None:
        for action in self._state.handle(event, time.monotonic()):
            followed = self._perform(action)
            if followed is not None:
                self._handle(followed)

    def _perform(self, action: events.Action) -> events.Event | None:
        """Do it. Returns the event that this was, if it was one."""
        if isinstance(action, events.SpawnFront):
            try:
                return events.Spawned(self._spawn_front(), is_front=True)
            except _SpawnFailed as error:
                return events.SpawnFailed(is_front=True, reason=str(error))
        if isinstance(action, events.SpawnWorker):
            if self._state.starts_nothing:
                # The script, preloaded for the worker before this one, could not be started.
                return None
            if self._settings.worker_preload and self._prepared is None:
                failure = self._preload()
                if failure is not None:
                    return failure
            try:
                return events.Spawned(self._spawn_worker(), is_front=False)
            except _SpawnFailed as error:
                return events.SpawnFailed(is_front=False, reason=str(error))
        if isinstance(action, events.Kill):
            # Children are only reaped in this loop, so the number cannot have passed to a stranger.
            os.kill(action.pid, action.number)
        elif isinstance(action, events.TellFront):
            self._tell_front(action.line)
        elif isinstance(action, events.Log):
            _logger.log(getattr(logging, action.level.upper()), "%s", action.text)
        else:
            self._exit_code = action.code
        return None

    def _tell_front(self, line: str) -> None:
        if self._front is None:
            return
        try:
            self._front.sendall(f"{line}\n".encode())
        except OSError as error:
            # It is dying or stuck: its end is noticed by SIGCHLD, or forced when its time is over.
            _logger.debug("Cannot tell the front %r: %s", line, error)

    def _spawn_front(self) -> int:
        opened: list[socket.socket] = []

        def begin() -> int:
            from . import front

            titles.set_name(titles.FRONT)
            titles.set_role("front")
            ours.close()
            self._worker_socket.worker_end.close()
            code = 1
            try:
                code = front.run(self._settings, self._clients, self._worker_socket.front_end, theirs, unread_signals)
            except OSError as error:
                _logger.critical("The front process failed: %s", shortage.explain(error))
            except BaseException:
                traceback.print_exc()
            # What a preloaded script wants to be done at its end is not this process's business.
            ending.at_once(code)

        try:
            ours, theirs = socket.socketpair()
            opened += ours, theirs
            unread_signals = self._wake_reader.dup() if self._settings.worker_preload else None
            if unread_signals is not None:
                opened.append(unread_signals)
            ours.settimeout(1.0)
            pid = self._fork(begin)
            opened.remove(ours)
        except OSError as error:
            raise _SpawnFailed(shortage.explain(error)) from error
        finally:
            for unneeded in opened:
                unneeded.close()
        if self._front is not None:
            self._front.close()
        self._front, self._front_text = ours, b""
        ours.setblocking(False)
        return pid

    def _spawn_worker(self) -> int:
        number = next(self._worker_numbers)

        def begin() -> int:
            from . import worker

            titles.set_name(titles.worker(number))
            titles.set_role(f"worker {number}")
            for unneeded in (*self._clients, self._worker_socket.front_end):
                unneeded.close()
            return worker.run(self._settings, self._worker_socket.worker_end, self.pid, self._prepared)

        return self._fork(begin)

    def _fork(self, begin: Callable[[], int]) -> int:
        """Fork; in the child, run ``begin`` and leave the supervisor's loop for good with its exit code."""
        # What is still buffered would be written once more by the child.
        for stream in (sys.stdout, sys.stderr):
            # A reader that has gone away must not take the server with it.
            with contextlib.suppress(OSError):
                stream.flush()
        self._is_forking = True
        try:
            pid = _os_fork()
        except OSError as error:
            raise _SpawnFailed(shortage.explain(error)) from error
        finally:
            self._is_forking = False
        if pid:
            return pid
        raise _ChildEnded(begin())

    def _forked(self) -> None:
        """Runs in every new child, those that a preloaded script forks included: it must not act as the supervisor."""
        if os.getppid() != self.pid:
            return
        signal.set_wakeup_fd(-1)
        if self._log is not None:
            self._log.forget()
            self._log.patience = LOG_PATIENCE
        self._terminal.close()
        unneeded = [self._wake_reader, self._wake_writer, self._front]
        if not self._is_forking:
            # A child of the script, which must not keep the port when the server ends.
            unneeded += [*self._clients, self._worker_socket.front_end, self._worker_socket.worker_end]
        for mine in unneeded:
            if mine is not None:
                mine.close()

    # ---- Preloading

    def _preload(self) -> events.Event | None:
        """Load the script in this process. The front is up already and lets requests wait."""
        from . import worker

        self._is_preloading = True
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal_handlers.install(dict.fromkeys((*_ENDING, _NUDGE, signal.SIGCHLD), self._attend))
        self._prepared = worker.prepare(self._settings)
        # Before what is left in the wake-up socket is read by the loop: the script may have set handlers of its own,
        # and blocked signals.
        self._catch_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._is_preloading = False
        self._wake_writer.send(bytes([*self._postponed, signal.SIGCHLD]))
        return None if self._prepared else events.PreloadFailed()

    def _attend(self, signalled: int, frame: object) -> None:
        """Signal handler while init() runs here: what cannot wait until it returns. Ends the command, or starts another
        front. Python runs it between two steps of the script's code, so native code that takes long holds it up. So
        does a call that was about to wait, say in ``time.sleep()``, when the signal came; the front sees to that."""
        if not self._is_told_of_signals():
            self._wake_writer.send(bytes([signalled]))
        if self._is_attending:
            return
        self._is_attending = True
        self._read_signals()
        while self._exit_code is None and self._state.next_wakeup() is not None:
            self._wait()
            self._handle(events.Tick())
        self._is_attending = False
        if self._exit_code is not None:
            _logger.info("Stopped.")
            ending.at_once(self._exit_code)

    def _is_told_of_signals(self) -> bool:
        """False if the script has their numbers written elsewhere, or nowhere, as asyncio leaves it."""
        descriptor = signal.set_wakeup_fd(-1)
        # What it was may be closed by now.
        with contextlib.suppress(OSError, ValueError):
            signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
        return descriptor == self._wake_writer.fileno()
