"""The supervisor's side of the operating system for worker processes: forks, sockets, signals and
waiting.

Makes the events for ``state.Supervisor`` and performs its actions (``supervising.py`` has the
loop). Owns the children and their descriptors. Runs in the launcher, which becomes the supervisor
when the listeners are open. Nothing here may start a thread, because a fork in a process with
threads may leave locks behind that nobody releases, or load the script, because a script may block.
``_fork`` starts every child.
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
from functools import partial
from typing import TYPE_CHECKING, Callable

from .. import _core
from ..launch import stdio, worker_environment
from ..launch.terminal import Terminal
from ..scripting.watch import NOBODY, Watch
from . import events, forks, process_exit, reports, shortage, signal_handlers, titles
from .events import Role
from .front_line import FrontLine
from .report_socket import ReportSocket
from .worker_socket import WorkerSocket

if TYPE_CHECKING:
    from ..launch.settings import Settings
    from .template import Line
    from .watching import Watching

_logger = logging.getLogger("azmlinfsrv")

# Seconds that a worker waits for room in standard output for a log line before it goes on
# (``launch/stdio.py``).
LOG_PATIENCE = 1.0
# Seconds between two checks of children that a signal has stopped. They are checked, because not
# every system sends SIGCHLD when a child is continued.
LOOK_AGAIN = 0.5
_HANDLED = (*events.SIGNALS, signal.SIGCHLD)


class Processes:
    """The supervisor's children and the descriptors that it shares with them."""

    def __init__(
        self,
        settings: Settings,
        clients: list[socket.socket],
        log: stdio.PatientStream | None = None,
        watch: Watch = NOBODY,
        watching: Watching | None = None,
    ) -> None:
        self.pid = os.getpid()
        self._settings = settings
        self._clients = clients
        self._watch = watch
        self._worker_socket = WorkerSocket()
        # None if nothing is exported.
        self._report_socket = ReportSocket() if settings.exports_telemetry else None
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._terminal = Terminal()
        self._roles: dict[int, Role] = {}
        # Children that a signal has stopped and nobody has continued yet.
        self._stopped: set[int] = set()
        self._oom_kills = reports.OomKills()
        self._front: FrontLine | None = None
        # The sockets to the templates, by pid.
        self._templates: dict[int, Line] = {}
        # Wait statuses of ended processes that are not known as children, by pid. A worker may end
        # before its template has reported its pid.
        self._unclaimed: dict[int, int] = {}
        # The numbers in the titles of workers.
        self._worker_numbers = itertools.count(1)
        # What --reload needs; None without it.
        self._watching = watching
        # The stream that log handlers write to; None if the user's own logging.json decides where
        # they write.
        self._log = log

    def catch_signals(self) -> None:
        """Install signal handlers, so that signals become events from now on."""
        # The handlers do nothing, because Python also writes each signal's number to the wake-up
        # socket. The loop reads the numbers there, in order, when it has finished with the event
        # before.
        signal_handlers.install(dict.fromkeys(_HANDLED, signal_handlers.do_nothing))
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)

    def watch_files(self) -> None:
        """Start the watcher process of --reload. Raises nothing: without it the server serves, but
        does not notice changes."""
        if self._watching is None:
            return
        watching = self._watching
        ours, theirs = socket.socketpair()

        def begin() -> int:
            titles.set_name(titles.WATCHER)
            titles.set_role("watcher")
            self._close_listeners()
            self._worker_socket.worker_end.close()
            if self._reports is not None:
                self._reports.close()
            return watching.run_watcher(theirs, self.pid)

        try:
            watching.begin(self._fork(begin, ours, theirs), ours)
        except OSError as error:
            _logger.error("--reload has no effect: %s", shortage.explain(error))

    def end_watching(self) -> None:
        """End the watcher process, because the server has ended."""
        if self._watching is not None:
            self._watching.end()

    # ---- What happens

    def wait(self, until: float | None) -> Iterator[events.Event]:
        """Sleep until something happens or the time ``until`` has come. Yields the events."""
        if self._stopped:
            look_again = time.monotonic() + LOOK_AGAIN
            until = look_again if until is None else min(until, look_again)
        poll = select.poll()
        sources = [self._wake_reader, *(line.socket for line in self._templates.values())]
        if self._front is not None:
            sources.append(self._front.socket)
        for source in sources:
            if source.fileno() >= 0:
                poll.register(source, select.POLLIN)
        for descriptor in () if self._watching is None else self._watching.descriptors:
            poll.register(descriptor, select.POLLIN)
        if self._terminal.descriptor is not None:
            poll.register(self._terminal.descriptor, 0)
        if self._log is not None and self._log.is_waiting:
            poll.register(self._log.descriptor, select.POLLOUT)
        # Rounded up, because the loop would otherwise call poll() again and again during the last
        # millisecond.
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
                # If a debugger holds a child, the kernel reports its stops to the debugger and not
                # here.
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # Reports that a child sent before it died are handled first.
            yield from self._read_lines()
            yield from self._changed(pid, status)

    def _changed(self, pid: int, status: int) -> Iterator[events.Event]:
        """The events for a process that has ended, or that a signal has stopped or continued.
        ``status`` is from ``waitpid``."""
        event = reports.of_child(pid, status, self._oom_kills)
        if pid not in self._roles:
            if self._watching is not None and isinstance(event, events.Exited):
                self._watching.left(pid)
            # This is an orphan that a script has left, or a worker whose template has not reported
            # its pid yet.
            if isinstance(event, events.Exited) and any(line.is_awaited for line in self._templates.values()):
                self._unclaimed[pid] = status
            return
        if isinstance(event, events.Stopped):
            self._stopped.add(pid)
        else:
            self._stopped.discard(pid)
        if isinstance(event, events.Exited):
            del self._roles[pid]
            _core.forget_process(pid)
            line = self._templates.pop(pid, None)
            yield from () if line is None else line.close()
        yield event

    def _read_lines(self) -> Iterator[events.Event]:
        """The events that the front, the templates and --reload have reported."""
        # Received first and handled last: a worker that a template has forked connects to the front
        # after its template has reported it, and a worker must be known before it is ready.
        of_front = [] if self._front is None else self._front.read()
        if self._watching is not None:
            yield from self._watching.read()
        for line in list(self._templates.values()):
            said = line.read() if line.socket.fileno() >= 0 else []
            if said is None:
                # The template is ending. SIGCHLD follows.
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
        yield from of_front

    # ---- Performing

    def perform(self, action: events.Action) -> events.Event | None:
        """Perform an action. Returns the event that this has caused, if any."""
        if isinstance(action, events.SpawnFront):
            return self._spawn(Role.FRONT, self._spawn_front)
        if isinstance(action, events.SpawnTemplate):
            return self._spawn(Role.TEMPLATE, self._spawn_template)
        if isinstance(action, events.SpawnWorker):
            if action.template is not None:
                return self._ask_template(action.template)
            return self._spawn(Role.WORKER, partial(self._spawn_worker, action.slot))
        if isinstance(action, events.Kill):
            if action.pid in self._roles:
                # The pid still belongs to this child, because only ``_reap`` frees pids, and
                # ``_roles`` lists the children that are not reaped.
                os.kill(action.pid, action.number)
        elif isinstance(action, events.ReleaseTemplate):
            if action.pid in self._templates:
                self._templates[action.pid].release()
        elif isinstance(action, events.TellFront):
            if self._front is not None:
                self._front.tell(action.order)
        else:
            raise TypeError(f"nobody performs {action!r}")
        return None

    def abandon(self) -> None:
        """Kill all children. The kernel reaps them when this process ends."""
        for pid in self._roles:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

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
            reports = None
            if self._report_socket is not None:
                self._report_socket.worker_end.close()
                reports = self._report_socket.front_end
            code = 1
            try:
                code = front.run(self._settings, self._clients, self._worker_socket.front_end, theirs, reports)
            except OSError as error:
                _logger.critical("The front process failed and ends: %s", shortage.explain(error))
            except BaseException:
                traceback.print_exc()
            process_exit.at_once(code)

        pid = self._fork(begin, ours, theirs)
        if self._front is not None:
            self._front.socket.close()
        self._front = FrontLine(ours)
        return pid

    def _spawn_template(self) -> int:
        # Imported here, because without WORKER_PRELOAD the import would only slow down the start.
        from . import template

        ours, theirs = socket.socketpair()

        def begin() -> int:
            titles.set_name(titles.TEMPLATE)
            titles.set_role("template")
            self._close_listeners()
            front, reports = self._worker_socket.worker_end, self._reports
            return template.run(self._settings, theirs, front, self.pid, self._log, self._watch, reports)

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

    def _spawn_worker(self, slot: int) -> int:
        number = next(self._worker_numbers)

        def begin() -> int:
            from ..scripting import worker

            titles.set_worker(number)
            if self._settings.worker_env is not None:
                given = worker_environment.parse(self._settings.worker_env)
                os.environ.update(worker_environment.variables(given, slot))
            self._close_listeners()
            front, reports = self._worker_socket.worker_end, self._reports
            return worker.run(self._settings, front, self.pid, None, self._watch, reports)

        return self._fork(begin)

    @property
    def _reports(self) -> socket.socket | None:
        """Where workers report what is exported."""
        return None if self._report_socket is None else self._report_socket.worker_end

    def _close_listeners(self) -> None:
        """Close the listeners in a child, so that no process that the script starts can hold the
        port."""
        for listener in (*self._clients, self._worker_socket.front_end):
            listener.close()
        if self._report_socket is not None:
            self._report_socket.front_end.close()

    def _fork(
        self, begin: Callable[[], int], ours: socket.socket | None = None, theirs: socket.socket | None = None
    ) -> int:
        """Fork a child, which calls ``begin``. Raises OSError.

        The child closes the descriptors that belong to the supervisor, among them ``ours``. Here
        ``theirs``, the child's end of the socket between the two, is closed.
        """

        def begin_child() -> int:
            if self._log is not None:
                self._log.forget()
                self._log.patience = LOG_PATIENCE
            self._terminal.close()
            if self._front is not None:
                self._front.socket.close()
            lines = (line.socket for line in self._templates.values())
            for mine in (self._wake_reader, self._wake_writer, ours, *lines):
                if mine is not None:
                    mine.close()
            if self._watching is not None:
                self._watching.close_in_child()
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
