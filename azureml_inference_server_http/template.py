"""The template process: loads the user's script once (WORKER_PRELOAD) and forks the workers, which share its memory.

Why a process of its own: the supervisor must obey signals and replace children whatever the script does, so it never
runs the script. A worker that is forked here becomes a child of the supervisor (``_fork_worker``), which signals and
reaps it like any other. ``Line`` is the supervisor's side, ``run`` the template's whole life.

The supervisor sends ``fork NUMBER``, and closes its side when the template is to end. The template answers ``loaded``
once; to each order ``forked PID`` or ``failed REASON``, in their order.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING

from . import _core, control, ending, events, forks, shortage, signal_handlers, stdio, supervising, titles, worker
from .events import Role

if TYPE_CHECKING:
    from .settings import Settings

_logger = logging.getLogger("azmlinfsrv")

# What lets a newborn worker go on.
_GO = b"\n"
# Python's own function. A script may have gevent replace it by one that needs its loop.
_waitpid = os.waitpid

# Why the template does not start a worker.
ENDED = "The template process has ended."

# ---- In the supervisor


class Line:
    """The supervisor's end of the line to a template, and the workers that it was asked for."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self.socket = line
        self.socket.setblocking(False)
        self._lines = control.Lines()
        self._unanswered = 0

    def fork(self, number: int) -> None:
        """Ask for the worker that is the so manyth of all. Raises OSError, for example if the template has ended."""
        self.socket.sendall(f"fork {number}\n".encode())
        self._unanswered += 1

    def release(self) -> None:
        """Let the template end when it has done what it was asked for."""
        # A template that is gone is noticed by its end.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    @property
    def is_awaited(self) -> bool:
        """Whether the template has not answered all orders."""
        return self._unanswered > 0

    def read(self) -> list[events.Event] | None:
        """What the template has said since the last time; None if it has closed the line."""
        try:
            received = self.socket.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return [self._event(line) for line in self._lines.add(received)] if received else None

    def close(self) -> list[events.Event]:
        """The template has ended. Returns that it will not start the workers that it was asked for."""
        self.socket.close()
        unanswered, self._unanswered = self._unanswered, 0
        return [events.SpawnFailed(Role.WORKER, ENDED, self.pid) for _ in range(unanswered)]

    def _event(self, line: str) -> events.Event:
        verb, _, text = line.partition(" ")
        if verb == "loaded":
            return events.Loaded(self.pid)
        self._unanswered -= 1
        if verb == "forked":
            return events.Spawned(int(text), Role.WORKER, self.pid)
        return events.SpawnFailed(Role.WORKER, text, self.pid)


# ---- In the template


class _NotForked(Exception):
    """The worker could not be forked; the text is a sentence that says why."""


class _Hurry:
    """Whether the server stops at once (SIGQUIT)."""

    def __init__(self) -> None:
        self.is_wanted = False

    def want(self, *_: object) -> None:
        """Signal handler."""
        self.is_wanted = True


def run(
    settings: Settings, line: socket.socket, front: socket.socket, supervisor: int, log: stdio.PatientStream | None
) -> int:
    """The whole life of a template. ``front`` is where its workers connect. Returns the exit code."""
    if not _core.die_with_parent(supervisor):
        return worker.EXIT_OK
    hurry = _Hurry()
    code = 1
    try:
        code = _serve(settings, line, front, supervisor, log, hurry)
    except supervising.ChildEnded:
        # Not the template any more, but a worker at its end.
        raise
    except BaseException:
        _begin_end(settings, code, hurry)
        raise
    _begin_end(settings, code, hurry)
    return code


def _begin_end(settings: Settings, code: int, hurry: _Hurry) -> None:
    """Limit the time for what the script has to do at its end, up to where Python itself goes on with it."""
    seconds = settings.graceful_timeout if code == worker.EXIT_OK else ending.FAILED_START
    ending.Ending(code, None if hurry.is_wanted else seconds, {signal.SIGQUIT}).begin()


def _serve(
    settings: Settings,
    line: socket.socket,
    front: socket.socket,
    supervisor: int,
    log: stdio.PatientStream | None,
    hurry: _Hurry,
) -> int:
    # The supervisor decides what signals to the process group mean, and closes the line.
    handlers: dict[int, signal_handlers.Handler] = {
        signal.SIGQUIT: hurry.want,
        **dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), signal_handlers.do_nothing),
    }
    signal_handlers.install(handlers)
    signal_handlers.keep_from_children(handlers, *handlers.values())
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    prepared = worker.prepare(settings)
    if prepared is None:
        return worker.EXIT_CANNOT_START
    # The script may have set other handlers, and blocked signals, which workers would inherit.
    signal_handlers.install(handlers)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        line.sendall(b"loaded\n")
    except OSError as error:
        _logger.error("%s. Perhaps the script has closed a file descriptor that it did not open.", error)
        return worker.EXIT_CANNOT_START
    lines = control.Lines()
    while received := line.recv(4096):
        for order in lines.add(received):
            if log is not None:
                log.flush()
            try:
                is_worker = _fork_worker(line, int(order.removeprefix("fork ")))
            except _NotForked as error:
                line.sendall(f"failed {error}\n".encode())
                continue
            except OSError as error:
                line.sendall(f"failed {shortage.explain(error)}\n".encode())
                continue
            if is_worker:
                line.close()
                if log is not None:
                    log.forget()
                forks.end_child(partial(worker.run, settings, front, supervisor, prepared))
    return worker.EXIT_OK


def _fork_worker(line: socket.socket, number: int) -> bool:
    """Fork a worker as a child of the supervisor and tell its pid. Returns True in the worker.

    Raises OSError or _NotForked.

    A process between the template and the worker ends at once, and the kernel gives the worker to the supervisor, which
    has asked for that (``_core.adopt_orphans``). The worker waits until the supervisor has been told its pid, so that
    no worker serves that the supervisor does not know; if the template dies before, the worker ends.
    """
    forks.flush()
    with _Pipe() as answer, _Pipe() as go:
        between = forks.plain_fork()
        if between == 0:
            # Already here, so that nobody sees a worker that is called like the template.
            titles.set_worker(number)
            _fork_again(answer)
            # Whoever reads from a pipe sees its end only when no writer is left.
            answer.close_writer()
            go.close_writer()
            if go.read() != _GO:
                os._exit(worker.EXIT_OK)
            return True
        answer.close_writer()
        text = answer.read().decode()
        # Only when it is gone has the worker its new parent. If the script ignores SIGCHLD, the kernel has reaped it.
        with contextlib.suppress(ChildProcessError):
            _waitpid(between, 0)
        if not text.isdigit():
            raise _NotForked(text or "The process between the template and the worker has died.")
        line.sendall(f"forked {text}\n".encode())
        # If the worker has died, the supervisor notices that.
        with contextlib.suppress(BrokenPipeError):
            go.write(_GO)
    return False


def _fork_again(answer: _Pipe) -> None:
    """Fork the worker, write its pid or why there is none, and exit. Returns in the worker alone."""
    try:
        pid = forks.plain_fork()
        if pid == 0:
            return
        answer.write(str(pid).encode())
    except OSError as error:
        answer.write(shortage.explain(error).encode())
    # Without what the script has registered for the end of its processes: this is none of them.
    os._exit(worker.EXIT_OK)


class _Pipe:
    """A pipe whose ends are closed once in each process. Not a socket pair, because gevent replaces sockets."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        self._is_writer_open = True

    def __enter__(self) -> _Pipe:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reader)
        self.close_writer()

    def close_writer(self) -> None:
        if self._is_writer_open:
            self._is_writer_open = False
            os.close(self._writer)

    def read(self) -> bytes:
        return os.read(self._reader, 4096)

    def write(self, data: bytes) -> None:
        os.write(self._writer, data)
