"""Sockets, forks, signals and waiting: the only file that touches the operating system for the process model.

Owns the children and their descriptors: the world becomes events for ``supervisor.Supervisor``, whose actions are
performed here (``supervising.py`` is the loop). Runs in the launcher, which becomes the supervisor when the listeners
are open. One thread for ever, so it may fork at any time, and no code of the user: nothing here may start a thread or
load the script. ``_fork`` is where the front, the template and the workers begin.
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
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable

from . import (
    _core,
    control,
    debug,
    ending,
    events,
    forks,
    listeners,
    log_config,
    reports,
    shortage,
    signal_handlers,
    stdio,
    supervising,
    titles,
)
from .children import EXIT_FAILED
from .events import Role
from .roster import longest_request
from .supervisor import Supervisor
from .terminal import Terminal
from .worker_kinds import PRELOADED_PROCESSES, PROCESSES, Kind
from .worker_socket import WorkerSocket

if TYPE_CHECKING:
    from .settings import Settings
    from .template import Line

_logger = logging.getLogger("azmlinfsrv")

# Seconds that a worker waits for a reader of its log before it goes on without.
LOG_PATIENCE = 1.0
# Seconds between two looks at stopped children: not every system sends SIGCHLD when one goes on.
LOOK_AGAIN = 0.5
_HANDLED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT),
    *(signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD, signal.SIGUSR1, signal.SIGWINCH),
)


def run(settings: Settings, clients: list[socket.socket]) -> int:
    """Start the front and the workers behind these listeners, and supervise them until the server stops.

    Returns the exit code of this process: of the command in the supervisor, and in a forked child of that child.
    """
    # Before the first record: a reader that has gone is no error.
    log = stdio.take_over_log(_logger) if log_config.find_user_config(settings) is None else None
    titles.set_name(titles.COMMAND)
    listeners.announce(settings)
    state = Supervisor(
        settings.worker_count,
        settings.graceful_timeout,
        _kind(settings),
        longest_request(settings.worker_timeout, settings.scoring_timeout_ms),
        reports.is_debugged,
    )
    try:
        processes = Processes(settings, clients, log)
    except OSError as error:
        _logger.critical("The server cannot start: %s", shortage.explain(error))
        return EXIT_FAILED
    processes.catch_signals()
    try:
        code = supervising.run(state, processes)
    except supervising.ChildEnded as child:
        return child.code
    _logger.info("Stopped.")
    return code


def _kind(settings: Settings) -> Kind:
    """How workers are started. The template's workers must become children of this process."""
    if not settings.worker_preload:
        return PROCESSES
    if debug.follows_forks(settings):
        _logger.warning("WORKER_PRELOAD has no effect under a debugger: each worker loads the script itself.")
        return PROCESSES
    if not _core.adopt_orphans():
        _logger.warning("WORKER_PRELOAD has no effect on this system: each worker loads the script itself.")
        return PROCESSES
    return PRELOADED_PROCESSES


class Processes:
    """The supervisor's children and the descriptors that it shares with them."""

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
        self._roles: dict[int, Role] = {}
        # Those that do nothing until they are continued.
        self._stopped: set[int] = set()
        # The line to the front of the moment, and what it said.
        self._front: socket.socket | None = None
        self._front_lines = control.Lines()
        # The lines to templates, by pid.
        self._templates: dict[int, Line] = {}
        # How children ended that were none of ours then: a template may not have told of its worker yet.
        self._unclaimed: dict[int, int] = {}
        # For the titles of workers.
        self._worker_numbers = itertools.count(1)
        # What the log is written to, unless a logging.json of the user's own decides on that.
        self._log = log

    def catch_signals(self) -> None:
        """Handle signals from here on."""
        # Handlers do nothing: the numbers arrive through the wake-up socket, in order, when the loop has time for them.
        signal_handlers.install(dict.fromkeys(_HANDLED, signal_handlers.do_nothing))
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)

    # ---- What happens

    def wait(self, until: float | None) -> Iterator[events.Event]:
        """Sleep until something happens or the time has come; what has happened."""
        if self._stopped:
            look_again = time.monotonic() + LOOK_AGAIN
            until = look_again if until is None else min(until, look_again)
        poll = select.poll()
        sources = [self._wake_reader, self._front, *(line.socket for line in self._templates.values())]
        for source in sources:
            if source is not None and source.fileno() >= 0:
                poll.register(source, select.POLLIN)
        if self._terminal.descriptor is not None:
            poll.register(self._terminal.descriptor, 0)
        if self._log is not None and self._log.is_waiting:
            poll.register(self._log.descriptor, select.POLLOUT)
        # Rounded up, or the last millisecond would be spent in a busy loop.
        timeout = None if until is None else max(0, math.ceil((until - time.monotonic()) * 1000))
        ready = {descriptor for descriptor, _ in poll.poll(timeout)}
        yield from self._read_lines()
        if self._terminal.descriptor in ready:
            self._terminal.look()
        if self._wake_reader.fileno() in ready:
            yield from self._read_signals()
        if self._log is not None and self._log.descriptor in ready:
            self._log.flush()
        if self._stopped:
            yield from self._reap()

    def _read_signals(self) -> Iterator[events.Event]:
        try:
            numbers = self._wake_reader.recv(4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGCHLD:
                yield from self._reap()
            elif number == signal.SIGHUP and self._terminal.has_hung_up():
                yield events.HungUp(self._terminal.is_ignored)
            else:
                yield events.Signalled(number)

    def _reap(self) -> Iterator[events.Event]:
        while True:
            try:
                # Stops and continuations for a debugger are not told here, but to the debugger.
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # What a child said before it died still counts.
            yield from self._read_lines()
            yield from self._changed(pid, status)

    def _changed(self, pid: int, status: int) -> Iterator[events.Event]:
        """What follows from the kernel's word on this child."""
        event = reports.of_child(pid, status)
        if pid not in self._roles:
            # An orphan of a worker, or a worker that its template has yet to tell of.
            if isinstance(event, events.Exited) and any(line.is_awaited for line in self._templates.values()):
                self._unclaimed[pid] = status
            return
        if isinstance(event, events.Stopped):
            self._stopped.add(pid)
        else:
            self._stopped.discard(pid)
        if isinstance(event, events.Exited):
            del self._roles[pid]
            line = self._templates.pop(pid, None)
            yield from () if line is None else line.close()
        yield event

    def _read_lines(self) -> Iterator[events.Event]:
        """What the front and the templates have said."""
        yield from self._read_front()
        for line in list(self._templates.values()):
            said = line.read() if line.socket.fileno() >= 0 else []
            if said is None:
                # It is dying; SIGCHLD tells the rest.
                line.socket.close()
                continue
            for event in said:
                if isinstance(event, events.Spawned):
                    self._roles[event.pid] = Role.WORKER
                yield event
                if isinstance(event, events.Spawned) and event.pid in self._unclaimed:
                    yield from self._changed(event.pid, self._unclaimed.pop(event.pid))
        if not any(line.is_awaited for line in self._templates.values()):
            self._unclaimed.clear()

    def _read_front(self) -> Iterator[events.Event]:
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
        for line in self._front_lines.add(received):
            report = control.read(line)
            if report is None:
                _logger.error("The front said something that makes no sense: %r", line)
            else:
                yield report

    # ---- Performing

    def perform(self, action: events.Action) -> events.Event | None:
        """Do it. Returns the event that this was, if it was one."""
        if isinstance(action, events.SpawnFront):
            return self._spawn(Role.FRONT, self._spawn_front)
        if isinstance(action, events.SpawnTemplate):
            return self._spawn(Role.TEMPLATE, self._spawn_template)
        if isinstance(action, events.SpawnWorker):
            if action.template is not None:
                return self._ask_template(action.template)
            return self._spawn(Role.WORKER, self._spawn_worker)
        if isinstance(action, events.Kill):
            if action.pid in self._roles:
                # Children are only reaped in this loop, so the number cannot have passed to a stranger.
                os.kill(action.pid, action.number)
        elif isinstance(action, events.ReleaseTemplate):
            if action.pid in self._templates:
                self._templates[action.pid].release()
        elif isinstance(action, events.TellFront):
            self._tell_front(action.order)
        else:
            raise TypeError(f"nobody performs {action!r}")
        return None

    def abandon(self) -> None:
        """Kill all children. The kernel reaps them when this process ends."""
        for pid in self._roles:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _tell_front(self, order: control.Order) -> None:
        if self._front is None:
            return
        try:
            self._front.sendall(control.write(order))
        except OSError as error:
            # It is dying or stuck: its end is noticed by SIGCHLD, or forced when its time is over.
            _logger.debug("Cannot tell the front %r: %s", order, error)

    def _spawn(self, role: Role, spawn: Callable[[], int]) -> events.Event:
        try:
            pid = spawn()
        except OSError as error:
            return events.SpawnFailed(role, shortage.explain(error))
        self._roles[pid] = role
        return events.Spawned(pid, role)

    def _spawn_front(self) -> int:
        ours, theirs = socket.socketpair()

        def begin() -> int:
            from . import front

            titles.set_name(titles.FRONT)
            titles.set_role("front")
            self._worker_socket.worker_end.close()
            code = 1
            try:
                code = front.run(self._settings, self._clients, self._worker_socket.front_end, theirs)
            except OSError as error:
                _logger.critical("The front process failed: %s", shortage.explain(error))
            except BaseException:
                traceback.print_exc()
            ending.at_once(code)

        pid = self._fork(begin, ours, theirs)
        if self._front is not None:
            self._front.close()
        ours.setblocking(False)
        self._front, self._front_lines = ours, control.Lines()
        return pid

    def _spawn_template(self) -> int:
        # Not imported without WORKER_PRELOAD: it would cost time at each start.
        from . import template

        ours, theirs = socket.socketpair()

        def begin() -> int:
            titles.set_name(titles.TEMPLATE)
            titles.set_role("template")
            self._close_listeners()
            return template.run(self._settings, theirs, self._worker_socket.worker_end, self.pid, self._log)

        pid = self._fork(begin, ours, theirs)
        self._templates[pid] = template.Line(pid, ours)
        return pid

    def _ask_template(self, template: int) -> events.Event | None:
        from .template import ENDED

        try:
            self._templates[template].fork(next(self._worker_numbers))
        except (OSError, KeyError) as error:
            _logger.debug("Cannot ask the template process %d for a worker: %r", template, error)
            return events.SpawnFailed(Role.WORKER, ENDED, template)
        return None

    def _spawn_worker(self) -> int:
        number = next(self._worker_numbers)

        def begin() -> int:
            from . import worker

            titles.set_worker(number)
            self._close_listeners()
            return worker.run(self._settings, self._worker_socket.worker_end, self.pid, None)

        return self._fork(begin)

    def _close_listeners(self) -> None:
        """What the script starts must not hold the port, even when the server has ended."""
        for listener in (*self._clients, self._worker_socket.front_end):
            listener.close()

    def _fork(
        self, begin: Callable[[], int], ours: socket.socket | None = None, theirs: socket.socket | None = None
    ) -> int:
        """Fork a child that has one end of a line, and lets go of what is the supervisor's. Raises OSError."""

        def begin_child() -> int:
            if self._log is not None:
                self._log.forget()
                self._log.patience = LOG_PATIENCE
            self._terminal.close()
            lines = (line.socket for line in self._templates.values())
            for mine in (self._wake_reader, self._wake_writer, self._front, ours, *lines):
                if mine is not None:
                    mine.close()
            return begin()

        try:
            pid = forks.fork(begin_child, _HANDLED)
        except OSError:
            if ours is not None:
                ours.close()
            raise
        finally:
            if theirs is not None and os.getpid() == self.pid:
                theirs.close()
        return pid
