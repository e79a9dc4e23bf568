"""The template process: loads the user's script once (WORKER_PRELOAD) and forks the workers, which
share its memory.

The template is a process of its own, because the supervisor must obey signals and replace children
whatever the script does, so the supervisor never runs the script. A worker that is forked here
becomes a child of the supervisor (``_fork_worker``), which signals and reaps it like any other
child. ``Line`` is the supervisor's end of the socket between the two, and ``run`` is the main
function of the template.

The template sends the line ``loaded`` when it has loaded the script. The supervisor sends ``fork
NUMBER`` for each worker, and the template answers each with ``forked PID`` or ``failed REASON``, in
order. The supervisor closes its side when the template must end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from functools import partial
from typing import TYPE_CHECKING

from .. import _core
from ..launch import stdio
from ..scripting import worker
from . import control, events, forks, process_exit, shortage, signal_handlers, supervising, titles
from .events import Role

if TYPE_CHECKING:
    from ..launch.settings import Settings
    from ..scripting.watch import Watch

_logger = logging.getLogger("azmlinfsrv")

# Sent to a forked worker when the supervisor has been told its pid: now it may serve.
_GO = b"\n"
# Python's own function, kept because gevent, if the script uses it, replaces it by one that needs
# gevent's loop.
_waitpid = os.waitpid

# The reason of a ``SpawnFailed`` event when the template that was asked for the worker is gone.
ENDED = "The template process has ended."

# ---- In the supervisor


class Line:
    """The supervisor's end of the socket to a template. Counts the orders that the template has not
    answered."""

    def __init__(self, pid: int, line: socket.socket) -> None:
        self.pid = pid
        self.socket = line
        self.socket.setblocking(False)
        self._lines = control.Lines()
        self._unanswered = 0

    def fork(self, number: int) -> None:
        """Order a worker, whose title shows ``number``. Raises OSError, for example if the template
        has ended."""
        self.socket.sendall(f"fork {number}\n".encode())
        self._unanswered += 1

    def release(self) -> None:
        """Tell the template to end when it has carried out the orders that it has."""
        # OSError: the template has died. The supervisor learns that from SIGCHLD.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    @property
    def is_awaited(self) -> bool:
        """True if the template has not answered all orders."""
        return self._unanswered > 0

    def read(self) -> list[events.Event] | None:
        """The events that the template has reported since the last call; None if it has closed its
        end."""
        try:
            received = self.socket.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            return None
        return [self._event(line) for line in self._lines.add(received)] if received else None

    def close(self) -> list[events.Event]:
        """Close the socket, because the template has ended. Returns a failure for each order
        without an answer."""
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
    """The worker could not be forked. The text is a whole sentence with the reason."""


class _Hurry:
    """Notes that SIGQUIT was received: the server stops at once."""

    def __init__(self) -> None:
        self.is_wanted = False

    def want(self, *_: object) -> None:
        """Signal handler for SIGQUIT: note that the server stops at once."""
        self.is_wanted = True


def run(
    settings: Settings,
    line: socket.socket,
    front: socket.socket,
    supervisor: int,
    log: stdio.PatientStream | None,
    watch: Watch,
    reports: socket.socket | None = None,
) -> int:
    """The main function of a template process. Its workers connect through ``front``. ``watch`` is
    told how far the start of the script has come. The template and its workers send what is
    exported through ``reports``; None if nothing is. Returns the exit code."""
    if not _core.die_with_parent(supervisor):
        return worker.EXIT_OK
    hurry = _Hurry()
    code = 1
    try:
        code = _serve(settings, line, front, supervisor, log, watch, hurry, reports)
    except supervising.ChildEnded:
        # This process is a worker that was forked below, and is exiting.
        raise
    except BaseException:
        _begin_end(settings, code, hurry)
        raise
    _begin_end(settings, code, hurry)
    return code


def _begin_end(settings: Settings, code: int, hurry: _Hurry) -> None:
    """Start the time limit for the script's cleanup, which Python runs when the main module
    returns."""
    seconds = settings.graceful_timeout if code == worker.EXIT_OK else process_exit.FAILED_START
    process_exit.ProcessExit(code, None if hurry.is_wanted else seconds, {signal.SIGQUIT}).begin()


def _serve(
    settings: Settings,
    line: socket.socket,
    front: socket.socket,
    supervisor: int,
    log: stdio.PatientStream | None,
    watch: Watch,
    hurry: _Hurry,
    reports: socket.socket | None,
) -> int:
    # A signal to the whole process group reaches the template too. It is ignored here, because the
    # supervisor decides what the signal means, and closes the socket when the template must end.
    handlers: dict[int, signal_handlers.Handler] = {
        signal.SIGQUIT: hurry.want,
        **dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), signal_handlers.do_nothing),
    }
    signal_handlers.install(handlers)
    signal_handlers.keep_from_children(handlers, *handlers.values())
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    prepared = worker.prepare(settings, watch, worker.channel(reports))
    if prepared is None:
        return worker.EXIT_CANNOT_START
    # Set again, because workers would inherit the handlers and blocked signals that the script has
    # set.
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
                forks.end_child(partial(worker.run, settings, front, supervisor, prepared, reports=reports))
    return worker.EXIT_OK


def _fork_worker(line: socket.socket, number: int) -> bool:
    """Fork a worker as a child of the supervisor, and report its pid. Returns True in the worker,
    False here.

    Raises OSError or _NotForked.

    The template forks a process that forks the worker and exits at once. The kernel then makes the
    worker a child of the supervisor, which has asked for its orphans (``_core.adopt_orphans``). The
    worker waits until the supervisor has been told its pid, because the supervisor must know every
    worker that serves. If the template dies before that, the worker exits.
    """
    stdio.flush_standard_streams()
    with _Pipe() as answer, _Pipe() as go:
        between = forks.plain_fork()
        if between == 0:
            # Set before the worker is forked, so that it never shows the template's title.
            titles.set_worker(number)
            _fork_again(answer)
            # Reading from a pipe returns its end only when all its writers are closed.
            answer.close_writer()
            go.close_writer()
            if go.read() != _GO:
                os._exit(worker.EXIT_OK)
            return True
        answer.close_writer()
        text = answer.read().decode()
        # Wait for the process between, because the worker gets its new parent when that process
        # ends. ChildProcessError: the script ignores SIGCHLD, so the kernel has reaped the process
        # already.
        with contextlib.suppress(ChildProcessError):
            _waitpid(between, 0)
        if not text.isdigit():
            raise _NotForked(text or "The process between the template and the worker has died.")
        line.sendall(f"forked {text}\n".encode())
        # BrokenPipeError: the worker has died. The supervisor learns that from SIGCHLD.
        with contextlib.suppress(BrokenPipeError):
            go.write(_GO)
    return False


def _fork_again(answer: _Pipe) -> None:
    """Fork the worker, write its pid or the reason for a failure to ``answer``, and exit. Returns
    only in the worker."""
    try:
        pid = forks.plain_fork()
        if pid == 0:
            return
        answer.write(str(pid).encode())
    except OSError as error:
        answer.write(shortage.explain(error).encode())
    # Skips the script's exit handlers, because they are for the template and the workers only.
    os._exit(worker.EXIT_OK)


class _Pipe:
    """A pipe that closes each of its ends once. It is no socket pair, because gevent may have
    replaced sockets."""

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
