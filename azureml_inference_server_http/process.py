"""Sockets, forks, signals and waiting: the only file that touches the operating system for the process model.

Owns the supervisor's loop: the world becomes events for ``supervisor.Supervisor``, whose actions are performed here.
Runs in the launcher, which becomes the supervisor when the listeners are open; ``_fork`` is where the front and the
workers begin. One thread for ever: nothing here may start another.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING, Callable

from . import events, listeners
from .supervisor import Supervisor

if TYPE_CHECKING:
    from .settings import Settings
    from .worker import Prepared

_logger = logging.getLogger("azmlinfsrv")

# Unix socket paths may be this long (108 bytes on Linux, 104 on macOS, the closing zero included).
MAX_SOCKET_PATH = 103
_HANDLED = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGCHLD", "SIGUSR1", "SIGWINCH")


_NO_CORE = (
    "the native module is missing. This is a source tree, or a package built for another Python: install the package "
    "into this environment, and start the command from another folder than the source tree's"
)


class _ForkFailed(Exception):
    """The system refused another process; the text says why."""


class _ChildEnded(Exception):
    """Carries a forked child's exit code out of the supervisor's loop, which is not the child's business any more."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def run(settings: Settings) -> int:
    """Open the listeners, start the front and the workers, and supervise them until the server stops.

    Returns the exit code of this process: of the command in the supervisor, and in a forked child of that child.
    """
    try:
        # Every child needs it: loaded once here, its pages are shared. It starts no thread until it is called.
        from . import _core  # noqa: F401
    except ImportError as error:
        print(f"azmlinfsrv: error: {_NO_CORE} ({error})", file=sys.stderr)
        return 1
    try:
        clients = listeners.open_all(settings)
    except listeners.ListenError as error:
        print(f"azmlinfsrv: error: {error}", file=sys.stderr)
        return 1
    folder = _private_folder()
    loop = _Loop(settings, clients, folder)
    try:
        return loop.run()
    except _ChildEnded as child:
        return child.code
    finally:
        if os.getpid() == loop.pid:
            _remove_folder(folder)


# ---- The private folder


def _private_folder() -> str:
    """A new folder that only this user may enter, for the socket that the workers connect to."""
    for parent in (os.environ.get("TMPDIR") or "/tmp", "/tmp"):
        folder = os.path.join(parent, f"azmlinfsrv-{os.getpid()}-{os.urandom(6).hex()}")
        if len(os.fsencode(_socket_path(folder))) > MAX_SOCKET_PATH:
            continue
        try:
            os.mkdir(folder, 0o700)
        except OSError:
            continue
        return folder
    raise SystemExit("azmlinfsrv: error: no folder for temporary files can be written. Set TMPDIR to one that can.")


def _socket_path(folder: str) -> str:
    return os.path.join(folder, "workers")


def _remove_folder(folder: str) -> None:
    for remove, path in ((os.unlink, _socket_path(folder)), (os.rmdir, folder)):
        try:
            remove(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            _logger.warning("Cannot remove %s: %s", path, error)


# ---- Supervising


class _Loop:
    """The supervisor's loop and the descriptors it owns."""

    def __init__(self, settings: Settings, clients: list[socket.socket], folder: str) -> None:
        self.pid = os.getpid()
        self._settings = settings
        self._clients = clients
        self._socket_path = _socket_path(folder)
        self._workers = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._workers.bind(self._socket_path)
        self._workers.listen(listeners.BACKLOG)
        # The line to the front of the moment, and what it said that does not end in a newline yet.
        self._front: socket.socket | None = None
        self._front_text = b""
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._state = Supervisor(settings.worker_count, settings.graceful_timeout, settings.worker_preload)
        self._exit_code: int | None = None
        # With WORKER_PRELOAD: the script, loaded here and inherited by every worker.
        self._prepared: Prepared | None = None

    def run(self) -> int:
        """Supervise until a ``Finish`` action; its code."""
        self._catch_signals()
        self._handle(events.Started())
        while self._exit_code is None:
            self._wait()
            self._handle(events.Tick())
        _logger.info("Stopped.")
        return self._exit_code

    def _catch_signals(self) -> None:
        # Handlers do nothing: the numbers arrive through the wake-up socket, in order, when the loop has time for them.
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        for name in _HANDLED:
            signal.signal(getattr(signal, name), lambda number, frame: None)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)

    def _wait(self) -> None:
        """Sleep until something happens, and handle it."""
        wakeup = self._state.next_wakeup()
        # Rounded up, or the last millisecond would be spent in a busy loop.
        timeout = None if wakeup is None else max(0, math.ceil((wakeup - time.monotonic()) * 1000))
        # Not select(): a preloaded script may have opened more files than that can watch.
        poll = select.poll()
        for source in (self._wake_reader, self._front):
            if source is not None:
                poll.register(source, select.POLLIN)
        readable = {descriptor for descriptor, _ in poll.poll(timeout)}
        if self._front is not None and self._front.fileno() in readable:
            self._read_front()
        if self._wake_reader.fileno() in readable:
            self._read_signals()

    def _read_signals(self) -> None:
        try:
            numbers = self._wake_reader.recv(4096)
        except BlockingIOError:
            return
        for number in numbers:
            if number == signal.SIGCHLD:
                self._reap()
            else:
                self._handle(events.Signalled(number))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # What a front said before it died still counts.
            self._read_front()
            self._handle(events.Exited(pid, os.waitstatus_to_exitcode(status)))

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
        verb, _, rest = line.partition(" ")
        pid, _, text = rest.partition(" ")
        if verb == "ready" and pid.isdigit():
            self._handle(events.Ready(int(pid)))
        elif verb == "kill" and pid.isdigit():
            self._handle(events.KillWanted(int(pid), text))
        elif verb == "recycle" and pid.isdigit():
            # Of the two reasons there are, only this one names the setting.
            self._handle(events.RecycleWanted(int(pid), text, too_large="--max_worker_rss" in text))
        else:
            _logger.error("The front said something that makes no sense: %r", line)

    # ---- Performing

    def _handle(self, event: events.Event) -> None:
        pending = [event]
        while pending:
            for action in self._state.handle(pending.pop(0), time.monotonic()):
                spawned = self._perform(action)
                if spawned is not None:
                    pending.append(spawned)

    def _perform(self, action: events.Action) -> events.Event | None:
        """Do it. A fork yields the event that it happened."""
        if isinstance(action, events.SpawnFront):
            try:
                return events.Spawned(self._spawn_front(), is_front=True)
            except _ForkFailed as error:
                return events.SpawnFailed(is_front=True, reason=str(error))
        if isinstance(action, events.SpawnWorker):
            if self._settings.worker_preload and self._prepared is None:
                failure = self._preload()
                if failure is not None:
                    return failure
            try:
                return events.Spawned(self._spawn_worker(), is_front=False)
            except _ForkFailed as error:
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
        ours, theirs = socket.socketpair()
        ours.settimeout(1.0)

        def begin() -> int:
            from . import front

            ours.close()
            return front.run(self._settings, self._clients, self._workers, theirs)

        pid = self._fork(begin)
        theirs.close()
        if self._front is not None:
            self._front.close()
        self._front, self._front_text = ours, b""
        ours.setblocking(False)
        return pid

    def _spawn_worker(self) -> int:
        def begin() -> int:
            from . import worker

            for unneeded in (*self._clients, self._workers):
                unneeded.close()
            return worker.run(self._settings, self._socket_path, self.pid, self._prepared)

        return self._fork(begin)

    def _preload(self) -> events.Event | None:
        """Load the script in this process. The front is up already and lets requests wait.

        Ctrl-C and QUIT interrupt init() here, because nobody else could.
        """
        from . import worker

        asked_to_stop: list[int] = []

        def interrupt(number: int, frame: object) -> None:
            asked_to_stop.append(number)
            raise KeyboardInterrupt

        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, interrupt)
        self._prepared = worker.prepare(self._settings)
        self._catch_signals()
        if asked_to_stop:
            return events.Signalled(asked_to_stop[0])
        return None if self._prepared else events.PreloadFailed()

    def _fork(self, begin: Callable[[], int]) -> int:
        """Fork; in the child, run ``begin`` and leave the supervisor's loop for good with its exit code."""
        # What is still buffered would be written once more by the child.
        for stream in (sys.stdout, sys.stderr):
            # A reader that has gone away must not take the server with it.
            with contextlib.suppress(OSError):
                stream.flush()
        # Until the child has handlers of its own, a signal to it would be told to the supervisor: they share the socket
        # that signal numbers are written to.
        handled = {getattr(signal, name) for name in _HANDLED}
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            raise _ForkFailed(error.strerror) from error
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            return pid
        signal.set_wakeup_fd(-1)
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        self._wake_reader.close()
        self._wake_writer.close()
        if self._front is not None:
            self._front.close()
        raise _ChildEnded(begin())
