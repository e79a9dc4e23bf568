"""A session: the server itself in a child process, with one worker, without a port, and with the probe in the worker.

Owns the child (its process group, its log, its end, also after Ctrl-C), the socket through which samples are sent, and
the limit of each step. The child runs what ``azmlinfsrv`` runs after its banner: supervisor, front, worker. What the
events mean is not decided here (``detection.py``). Runs in the command, which has one thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Union

from ..launch import cli, settings
from ..launch.stdio import flush_standard_streams
from ..log_config import LogConfigError
from ..scripting import own_files
from ..supervise import process_exit, titles
from ..supervise.worker_kinds import describe_exit
from . import probe

if TYPE_CHECKING:
    from ..launch.settings import RawSettings, Settings
    from .comparing import Answer
    from .detection import Event
    from .samples import Sample

# Seconds beyond its limit after which a step is given up. At the limit the probe shows the stack in the log.
GRACE = 1.0
# Seconds that the server has for its end before it is killed.
END = 5.0
# Signals that end the command.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WORKER_LOST = "The worker process running this request "
_TIMES_OUT = "(WORKER_TIMEOUT)"


class Answered(NamedTuple):
    """An answer came. ``events``: what the worker told during the call; ``seconds``: as the client saw it."""

    answer: Answer
    events: list[Event]
    seconds: float


class Ended(NamedTuple):
    """The process ended; ``how`` says by what, as in "was killed by signal 11 (SIGSEGV)"."""

    how: str
    events: list[Event]


class Hung(NamedTuple):
    """The limit is over."""

    events: list[Event]


Outcome = Union[Answered, Ended, Hung]


class Session:
    """A server that lives until ``close``."""

    def __init__(self, raw: RawSettings, given: Settings, limit: float) -> None:
        """Start it; within ``held_signals``. ``limit``: seconds for the import, for init(), and for each
        request. Raises OSError."""
        self._limit = limit
        # Folders that hold the user's own files.
        self.own_folders = own_files.folders_of(given)
        self._folder: str | None = None
        self._log = _log_file()
        listener = self._listen()
        self._address = listener.getsockname()
        self._events, told = os.pipe()
        self._rest = b""
        self._status: int | None = None
        flush_standard_streams()
        parent = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._events)
            _serve(raw, given, listener, probe.Probe(given, told, limit), self._log, parent)
        os.close(told)
        listener.close()
        with contextlib.suppress(OSError):  # the child does it as well; whoever comes first
            os.setpgid(self._pid, self._pid)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.uname().sysname == "Linux":
            listener.bind("")  # a name that the kernel makes up, outside the file system
        else:
            import tempfile

            self._folder = tempfile.mkdtemp(prefix="azv-")
            listener.bind(os.path.join(self._folder, "front"))
        listener.listen()
        return listener

    # ---- The start

    def start(self) -> Iterator[Event]:
        """The events until the script is ready or cannot be served, as they come. The last one may be "ended", with
        the field ``how``, or "hung", both made here."""
        pid = None
        until = time.monotonic() + self._limit + GRACE
        while True:
            events = self._read(until)
            if events is None:
                self._wait_for_stack()
                yield {"event": "hung"}
                return
            for event in events:
                if event["event"] == "step":
                    if pid not in (None, event["pid"]):
                        # Another worker: the first one died, and the supervisor has replaced it.
                        yield {"event": "ended", "how": self._how_worker_ended()}
                        return
                    pid = event["pid"]
                    until = time.monotonic() + self._limit + GRACE
                yield event
                if event["event"] in ("ready", "failed"):
                    return
            if not events:
                yield {"event": "ended", "how": self._how_worker_ended()}
                return

    def _how_worker_ended(self) -> str:
        """What the log or the kernel says of the end of the first worker."""
        import re

        found = re.search(r"Worker \(pid:\d+\) (was .*?|exited .*?)[.!]?$", self.log(), re.MULTILINE)
        return found[1] if found else self._how_server_ended()

    # ---- Requests

    def send(self, sample: Sample) -> Outcome:
        """Send a sample and wait for what comes of it."""
        import http.client

        from . import client  # not before the fork, like all that the server does not import

        started = time.monotonic()
        try:
            answer = client.send(client.to_socket(self._address, self._limit + GRACE), sample)
        except socket.timeout:
            self._wait_for_stack()
            return Hung(self._available())
        except (OSError, http.client.HTTPException):
            return Ended(self._how_server_ended(), self._available())
        events = self._available()
        if answer.status == 503 and not events and self._ends_within(GRACE):
            # The server gave up because its workers end before they serve.
            return Ended(self._how_worker_ended(), events)
        text = answer.body.decode("utf-8", "replace") if answer.status == 500 else ""
        if _WORKER_LOST in text:
            return Ended(text.split(_WORKER_LOST, 1)[1].partition(". The request")[0], events)
        if _TIMES_OUT in text:
            return Hung(events)
        return Answered(answer, events, time.monotonic() - started)

    # ---- Events

    def _read(self, until: float) -> list[Event] | None:
        """Events that have come, at least one; none if no more will come; None when the time is over."""
        while True:
            events = self._available()
            if events:
                return events
            if self._events < 0 or self._has_ended():
                return []
            seconds = until - time.monotonic()
            if seconds <= 0:
                return None
            # A child of the script may keep the pipe open, so its end is not all that is waited for.
            select.select([self._events], [], [], min(seconds, 0.1))

    def _available(self) -> list[Event]:
        while self._events >= 0 and select.select([self._events], [], [], 0)[0]:
            received = os.read(self._events, 65536)
            if not received:
                os.close(self._events)
                self._events = -1
            self._rest += received
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines]

    def _has_ended(self) -> bool:
        """Whether the server has ended, and all that it said has been read."""
        return self._ends_within(0) and not select.select([self._events], [], [], 0)[0]

    def _ends_within(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = status
            elif time.monotonic() >= until:
                return False
            else:
                time.sleep(0.002)
        return True

    def _how_server_ended(self) -> str:
        if self._status is None and not self._ends_within(END):
            return "does not answer any more"
        return describe_exit(os.waitstatus_to_exitcode(self._status or 0))

    # ---- The log and the end

    def _wait_for_stack(self) -> None:
        """Wait until the probe has shown the stack of what hangs. On a busy machine that takes a moment."""
        until, before = time.monotonic() + END, ""
        while time.monotonic() < until:
            log = self.log()
            if "\nTimeout (" in f"\n{log}" and log == before:
                return
            before = log
            time.sleep(0.05)

    def log(self) -> str:
        """What the server and the script have written."""
        size = os.fstat(self._log).st_size
        return os.pread(self._log, size, 0).decode("utf-8", "replace")

    def close(self, at_once: bool = False) -> None:
        """End the server and all that the script has started in its process group. ``at_once``: do not ask."""
        if self._status is None and not at_once:
            os.kill(self._pid, signal.SIGTERM)
            self._ends_within(END)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        if self._status is None:
            self._status = os.waitpid(self._pid, 0)[1]
        if self._events >= 0:
            os.close(self._events)
            self._events = -1
        os.close(self._log)
        if self._folder is not None:
            import shutil

            shutil.rmtree(self._folder, ignore_errors=True)


def _log_file() -> int:
    """A file without a name, which vanishes with its last descriptor."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("azmlinfsrv-validate-log")
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix="azv-")
    os.unlink(path)
    return descriptor


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Signals that end the command wait until the block is over: the session must be known by then."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(
    raw: RawSettings, given: Settings, listener: socket.socket, watch: probe.Probe, log: int, parent: int
) -> NoReturn:
    """The child: what the command does after it has opened its listeners, and the end of the process."""
    code = cli.EXIT_CANNOT_START
    try:
        from .. import _core

        os.setpgid(0, 0)
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        if _core.die_with_parent(parent):
            null = os.open(os.devnull, os.O_RDONLY)
            for descriptor, standard in ((null, 0), (log, 1), (log, 2)):
                os.dup2(descriptor, standard)
            titles.set_name(titles.COMMAND)
            sys.argv[1:] = ["--entry_script", given.entry_script or ""]
            try:
                cli.configure_logging(raw, given)
            except LogConfigError as error:
                watch.settings_failed(error)
            else:
                os.environ.update(settings.exported_environment(given))
                code = cli.serve(given, [listener], watch)
    except BaseException:
        traceback.print_exc()
    finally:
        # Whatever fails, the child must not go on with what the command was doing.
        try:
            process_exit.ProcessExit(code, None, ()).finish()
        finally:
            os._exit(code)
