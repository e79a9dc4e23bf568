"""Starts the real command, talks HTTP to it byte by byte, and reads its log: what every end-to-end
test is made of.

Owns processes (``Server``), the wire (``Connection``, ``Response``) and the log (``Record``). Does
not own what is expected of them; the tests in ``e2e/`` do. Runs in the test process. Nothing here
sleeps to wait for something to have happened: ``eventually`` polls for it, with a deadline that
fails the test.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

SCRIPTS = Path(__file__).parent / "scripts"
COMMAND = (sys.executable, "-m", "azureml_inference_server_http")
# Runs its arguments as a command that the kernel ends together with the test process
# (PR_SET_PDEATHSIG), so that a test run that is killed leaves no servers behind. Not a preexec_fn:
# those are not safe once the test process has threads.
TIED_TO_US = (
    *(sys.executable, "-I", "-S", "-c"),
    # A shell ignores Ctrl-C in background commands, so it may be ignored here. The servers must not
    # inherit that.
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, 9); signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "signal.signal(signal.SIGQUIT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])",
)
# Headers of a client that asks for another request on its connection: only /score keeps connections
# open unasked.
KEPT = {"Connection": "keep-alive"}
# The process names of the front and of a template. Every other child of the supervisor is a worker.
FRONT, TEMPLATE = "azml:front", "azml:template"
# Limit in seconds for anything that a test waits for. It is far longer than needed, because the
# machine may be busy.
PATIENCE = 20.0

Found = TypeVar("Found")


def eventually(probe: Callable[[], Found], what: str, timeout: float = PATIENCE) -> Found:
    """Poll until ``probe`` returns something true, and return that. Fails, naming ``what``, at the
    deadline."""
    deadline = time.monotonic() + timeout
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.005)


# ---- The wire


@dataclasses.dataclass(frozen=True)
class Response:
    """A received HTTP response."""

    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    # The parts of a chunked body, each as the server sent it; None for any other framing.
    chunks: list[bytes] | None = None

    def values(self, name: str) -> list[str]:
        """All values of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def __getitem__(self, name: str) -> str | None:
        """``response["content-type"]``: the value of a header that is there once, None if it is not
        there."""
        values = self.values(name)
        assert len(values) < 2, f"header {name} came {len(values)} times: {values}\n{self}"
        return values[0] if values else None

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON, which its Content-Type must announce."""
        assert self["content-type"] == "application/json", str(self)
        return json.loads(self.body)

    def __str__(self) -> str:
        lines = [f"{self.version} {self.status} {self.reason}", *(f"{name}: {value}" for name, value in self.headers)]
        return "\n".join([*lines, "", repr(self.body[:2000])])


def request(
    method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None, version: str = "1.1"
) -> bytes:
    """The bytes of a request. Content-Length is added for a body; a header of that name in
    ``headers`` replaces it."""
    fields = {"Host": "localhost", **({"Content-Length": str(len(body))} if body else {}), **(headers or {})}
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Connection:
    """A client's connection: sends bytes and reads responses."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Connection:
        self.socket.sendall(data)
        return self

    def close_sending(self) -> Connection:
        """Close the sending side. Replies can still be read."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        self.socket.close()

    def read(self, method: str = "POST") -> Response:
        """The next response, interim ones included. ``method`` is that of the request, as HEAD has
        no body."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head[:-4].split("\r\n")
        version, status, reason = (*status_line.split(" ", 2), "")[:3]
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        response = Response(version, int(status), reason, headers, b"")
        if method == "HEAD" or response.status < 200 or response.status in (204, 304):
            return response
        if "chunked" in (response["transfer-encoding"] or ""):
            chunks = list(self._chunks())
            return dataclasses.replace(response, body=b"".join(chunks), chunks=chunks)
        length = response["content-length"]
        body = self.rest() if length is None else self.exactly(int(length))
        return dataclasses.replace(response, body=body)

    def read_head_of_stream(self) -> Response:
        """Read the head of a chunked response. ``next_chunk`` reads its parts."""
        response = self.read(method="HEAD")
        assert response["transfer-encoding"] == "chunked", str(response)
        return response

    def next_chunk(self) -> bytes:
        """The next part of a chunked body; empty at its end."""
        length = int(self._until(b"\r\n").strip(), 16)
        data = self.exactly(length + 2)
        assert data[-2:] == b"\r\n"
        return data[:-2]

    def exchange(self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Response:
        """Send one request and read its response."""
        return self.send(request(method, target, body, headers)).read(method)

    def is_silent(self, seconds: float) -> bool:
        """True if nothing arrives, not even the end of the stream, in this time."""
        assert not self._received, f"unread: {self._received!r}"
        self.socket.settimeout(seconds)
        try:
            self._received = self.socket.recv(65536)
        except socket.timeout:
            return True
        finally:
            self.socket.settimeout(PATIENCE)
        return False

    def assert_closed(self) -> None:
        """Check that the server closes the connection and sends nothing before that."""
        rest = self.rest()
        assert rest == b"", f"unexpected bytes before the end of the connection: {rest!r}"

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self.next_chunk():
            yield chunk

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._more(f"{end!r}")
        at = self._received.index(end) + len(end)
        found, self._received = self._received[:at], self._received[at:]
        return found

    def exactly(self, length: int) -> bytes:
        """Read this many bytes."""
        while len(self._received) < length:
            self._more(f"{length} bytes")
        found, self._received = self._received[:length], self._received[length:]
        return found

    def rest(self) -> bytes:
        """Read everything until the server closes the connection."""
        found, self._received = self._received, b""
        while data := self.socket.recv(65536):
            found += data
        return found

    def _more(self, wanted: str) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the connection ended while waiting for {wanted}, after {self._received!r}")
        self._received += data


class Background:
    """One request in a thread of its own, for tests that do something while it waits."""

    def __init__(self, send: Callable[[], Response]) -> None:
        self._outcome: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(send,), daemon=True)
        self._thread.start()

    def _run(self, send: Callable[[], Response]) -> None:
        try:
            self._outcome.append(send())
        except BaseException as error:
            self._outcome.append(error)

    @property
    def is_done(self) -> bool:
        return bool(self._outcome)

    def result(self, timeout: float = PATIENCE) -> Response:
        """Wait for the response and return it."""
        self._thread.join(timeout)
        assert self._outcome, f"no answer within {timeout} s"
        if isinstance(self._outcome[0], BaseException):
            raise self._outcome[0]
        response: Response = self._outcome[0]
        return response


# ---- The log


class Record(NamedTuple):
    """A record of the contract's line format; ``text`` has the lines that follow the first one,
    too."""

    time: str
    level: str
    pid: int
    logger: str
    message: str
    text: str


_RECORD = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ([DIWEC]) \[(\d+)\] ([\w.]+) - (.*)")


def parse_log(output: str) -> list[Record]:
    """The records in what the server wrote to stdout."""
    records: list[Record] = []
    for line in output.splitlines():
        if match := _RECORD.fullmatch(line):
            when, level, pid, logger, message = match.groups()
            records.append(Record(when, level, int(pid), logger, message, message))
        elif records:
            records[-1] = records[-1]._replace(text=f"{records[-1].text}\n{line}")
    return records


# ---- Processes


class _Stat(NamedTuple):
    pid: int
    name: str
    state: str
    parent: int
    session: int


def _processes() -> Iterator[_Stat]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))):
            yield stat


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name is in parentheses, and may contain any character.
    name = text[text.index("(") + 1 : text.rindex(")")]
    state, parent, _, session = text[text.rindex(")") + 2 :].split()[:4]
    return _Stat(pid, name, state, int(parent), int(session))


def is_running(pid: int) -> bool:
    """True unless the process is gone or only waits to be reaped."""
    stat = _stat(pid)
    return stat is not None and stat.state != "Z"


class Terminal:
    """A pseudo terminal. ``starts`` is a program that starts the command given as its arguments
    with this terminal as its controlling terminal and standard input: for
    ``Server(through=...)``."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        take_it = (
            "import fcntl, os, sys, termios\n"
            "terminal = os.open(sys.argv[1], os.O_RDWR)\n"
            "fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)\n"
            "os.dup2(terminal, 0)\n"
            "os.execvp(sys.argv[2], sys.argv[2:])"
        )
        self.starts = (sys.executable, "-c", take_it, os.ttyname(self._slave))
        self._is_open = True

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def close(self) -> None:
        """Close the terminal, which sends SIGHUP to its programs."""
        if self._is_open:
            self._is_open = False
            os.close(self._slave)
            os.close(self._master)


class Port:
    """A port that nobody else gets: bound, but never listened on, for as long as this object
    lives."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("0.0.0.0", 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        self._socket.close()


def fill(writer: int) -> int:
    """Write to a pipe until nothing goes in any more; how many bytes that were.

    Not in non-blocking mode, which would be the mode of everybody who has the pipe.
    """
    poll = select.poll()
    poll.register(writer, select.POLLOUT)
    written = 0
    while poll.poll(0):
        written += os.write(writer, b"x" * select.PIPE_BUF)
    return written


class Server:
    """The command, running in its own session with its own folder for temporary files."""

    # All servers that have not been stopped yet. Reports of failed tests show their output.
    running: list[Server] = []

    def __init__(
        self,
        folder: Path,
        script: str | None,
        *options: str,
        files: dict[str, str] | None = None,
        separate_health: bool = False,
        stdout: int | None = None,
        command: Sequence[str] = COMMAND,
        through: tuple[str, ...] = (),
        **environment: str,
    ) -> None:
        """Start the command in ``folder``, after ``files`` have been written there.

        ``script`` is a file in ``tests/scripts``, or a path; ``environment`` is added to a bare
        one. ``stdout`` is a descriptor for the log, which cannot be looked at then; ``through`` a
        program that starts the command given as its arguments; ``command`` is started in its place.
        Does not wait for anything; see ``wait_until_ready``.
        """
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        self._ports = [Port(), Port()]
        self.port, self.health_port = (port.number for port in self._ports)
        self.folder = folder
        # Not below pytest's own folder: socket paths have to be short.
        self._temporary = tempfile.TemporaryDirectory(prefix="azt-")
        self.temporary = Path(self._temporary.name)
        self.has_threads = environment.get("AZMLINFSRV_WORKER_CLASS") == "thread"
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        arguments = ["--port", str(self.port), *options]
        if script:
            arguments += ["--entry_script", str(SCRIPTS / script)]
        if separate_health:
            arguments += ["--health_port", str(self.health_port)]
            environment["SEPERATE_HEALTH_ENDPOINT"] = "true"
        with self._stdout.open("wb") as log, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*TIED_TO_US, *through, *command, *arguments],
                cwd=folder,
                env=self._environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=stderr,
                start_new_session=True,
            )
        self.pid = self.process.pid
        self._connections: list[Connection] = []
        self.running.append(self)

    def _environment(self, added: dict[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
        own = {"HOME": str(self.folder), "TMPDIR": str(self.temporary), "PYTHONDONTWRITEBYTECODE": "1"}
        return {**kept, **own, **added}

    # ---- Waiting

    def wait_until_ready(self) -> Server:
        """Wait until ``GET /`` answers 200. Fails with the output if the command ends before."""
        eventually(self._is_ready, "the server is ready")
        return self

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"the server ended with code {self.process.returncode}\n{self.output()}"
        try:
            with Connection(self.port) as connection:
                return connection.exchange("GET", "/").status == 200
        except ConnectionError:
            return False

    def wait_for_workers(self, count: int, instead_of: Collection[int] = ()) -> list[int]:
        """Wait until exactly this many workers live, each has logged that it is ready, and none is
        one of ``instead_of``. Returns their pids.

        All facts come from one look at the processes, because between two looks one may end and
        another begin. Threads that have ended are counted too.
        """

        def ready() -> list[int] | None:
            if self.has_threads:
                said = self.ready_pids()
                return said if len(said) == count else None
            workers = self.workers()
            is_settled = len(workers) == count and set(workers).isdisjoint(instead_of)
            return workers if is_settled and set(workers) <= set(self.ready_pids()) else None

        return eventually(ready, f"{count} workers are ready" + (f" in place of {instead_of}" if instead_of else ""))

    def wait_for_exit(self, timeout: float = PATIENCE) -> int:
        """Wait until the command has ended. Returns its exit code."""
        return self.process.wait(timeout)

    # ---- Processes

    def workers(self) -> list[int]:
        """Pids of the worker processes, starting ones included."""
        if self.has_threads:
            return [self.pid]
        return [child.pid for child in self._children() if child.name not in (FRONT, TEMPLATE)]

    def templates(self) -> list[int]:
        """Pids of the template processes (WORKER_PRELOAD), including those that still load the
        script."""
        return [child.pid for child in self._children() if child.name == TEMPLATE]

    def front(self) -> int:
        """Wait for a front. Returns its pid."""
        return eventually(lambda: [child.pid for child in self._children() if child.name == FRONT], "there is a front")[
            0
        ]

    def kill_front(self) -> int:
        """Kill the front, and wait until it is dead, so that ``front`` cannot return it any more.
        Returns its pid. The next front may not have begun."""
        front = self.front()
        os.kill(front, signal.SIGKILL)
        eventually(lambda: not is_running(front), "the front is dead")
        return front

    def _children(self) -> list[_Stat]:
        """The living children of the supervisor. Waits while one of them has its parent's name, and may still become a
        worker, the front or a template: each gives itself a name as soon as it is forked."""

        def named() -> tuple[list[_Stat]] | None:
            own_name = getattr(_stat(self.pid), "name", None)
            children = [stat for stat in _processes() if stat.parent == self.pid and stat.state != "Z"]
            return None if any(child.name == own_name for child in children) else (children,)

        return eventually(named, "every process of the server has a name")[0]

    def members(self) -> list[int]:
        """Pids of every living process of the command's session, grandchildren and orphans
        included."""
        return [stat.pid for stat in _processes() if stat.session == self.pid and stat.state != "Z"]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone, as a process manager does."""
        self.process.send_signal(number)

    # ---- Output

    def stdout(self) -> str:
        return self._stdout.read_text(errors="replace")

    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace")

    def complaints(self) -> str:
        """The text on stderr without the line that each worker writes when it boots."""
        return re.sub(r".* gunicorn\.error - Booting worker with pid: \d+\n", "", self.stderr())

    def output(self) -> str:
        return f"--- stdout\n{self.stdout()}--- stderr\n{self.stderr()}"

    def records(self, logger: str | None = None, level: str | None = None) -> list[Record]:
        """The log records so far: all, or those of one logger or level."""
        return [
            record
            for record in parse_log(self.stdout())
            if logger in (None, record.logger) and level in (None, record.level)
        ]

    def wait_for_record(self, text: str, **wanted: str) -> Record:
        """The first record whose first line contains ``text``."""

        def find() -> Record | None:
            return next((record for record in self.records(**wanted) if text in record.message), None)

        return eventually(find, f"a log record with {text!r}")

    def ready_pids(self) -> list[int]:
        """Pids of all workers that ever said they were ready."""
        said = re.compile(r"Worker with pid (\d+) ready for serving traffic(?: \(thread \d+\))?")
        found = (said.fullmatch(record.message) for record in self.records())
        return [int(match[1]) for match in found if match]

    # ---- Requests

    def connect(self, port: int | None = None) -> Connection:
        """Open a connection. If the test does not close it, it is closed when the server is
        stopped."""
        self._connections.append(Connection(port or self.port))
        return self._connections[-1]

    def get(self, target: str, port: int | None = None) -> Response:
        """A GET on a connection of its own."""
        with self.connect(port) as connection:
            return connection.exchange("GET", target)

    def score(self, body: bytes | str = b"", **headers: str) -> Response:
        """POST to /score with the standard library's client, which checks the framing independently
        of ``Connection``."""
        return self.request("POST", "/score", body, headers)

    def request(
        self, method: str, target: str, body: bytes | str = b"", headers: dict[str, str] | None = None
    ) -> Response:
        """Send any request with the standard library's client, on a connection of its own. ``_`` in
        header names means ``-``."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        named = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
        try:
            client.request(method, target, body.encode() if isinstance(body, str) else body, named)
            reply = client.getresponse()
            version = f"HTTP/{reply.version // 10}.{reply.version % 10}"
            return Response(version, reply.status, reply.reason, reply.getheaders(), reply.read())
        finally:
            client.close()

    def score_later(self, body: bytes | str = b"", **headers: str) -> Background:
        """POST to /score in a thread of its own."""
        return Background(lambda: self.score(body, **headers))

    # ---- The end

    def stop(self) -> None:
        """End the command and check that it leaves no process and no file behind."""
        self.running.remove(self)
        for connection in self._connections:
            connection.close()
        try:
            self._end()
            assert not self.members(), f"processes outlived the command: {self.members()}\n{self.output()}"
            left = [path.name for path in self.temporary.glob("azmlinfsrv-*")]
            assert not left, f"left behind in TMPDIR: {left}\n{self.output()}"
        finally:
            self._kill_all()
            for port in self._ports:
                port.release()
            self._temporary.cleanup()

    def _end(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"TERM did not end the command\n{self.output()}") from None
        # When the supervisor was killed, its children end a moment later.
        if self.process.returncode < 0:
            eventually(lambda: not self.members(), "the orphans have ended")

    def _kill_all(self) -> None:
        for pid in self.members():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(PATIENCE)


# The type of the fixtures ``start`` and ``shared`` of conftest.py.
Start = Callable[..., Server]
