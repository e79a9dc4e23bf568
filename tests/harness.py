"""Starts the real command, talks HTTP to it byte by byte, and reads its log: what every end-to-end
test is made of.

Owns processes (``Server``). ``wire.py`` owns requests and responses, ``log_lines.py`` the records
of the log, ``surroundings.py`` terminals, ports and pipes, ``processes.py`` what /proc says. None of
them owns what is expected; the tests in ``e2e/`` do. Runs in the test process. Nothing here sleeps
to wait for something to have happened: ``eventually`` polls for it, with a deadline that fails the
test.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from log_lines import Record, parse_log
from processes import Stat, is_running, processes, stat_of
from surroundings import Port
from wire import PATIENCE, Background, Connection, Response, clients, request

SCRIPTS = Path(__file__).parent / "scripts"
# TEST_SERVER is another command that takes the same options, such as tests/windows_command.py.
COMMAND = tuple(shlex.split(os.environ.get("TEST_SERVER", ""))) or (
    *(sys.executable, "-m", "azureml_inference_server_http"),
)
# The server runs under Wine, and its process ids and paths are those of Windows.
IS_WINDOWS = any(part.endswith("windows_command.py") for part in COMMAND)
# Runs its arguments as a command that the kernel ends together with the test process
# (PR_SET_PDEATHSIG), so that a test run that is killed leaves no servers behind. Not a preexec_fn:
# those are not safe once the test process has threads. A Python does the same where setpriv (of
# util-linux) is missing, and takes 11 ms more to start.
SETPRIV = shutil.which("setpriv")
TIED_TO_US = (
    (SETPRIV, "--pdeathsig", "KILL")
    if SETPRIV
    else (
        *(sys.executable, "-I", "-S", "-c"),
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])",
    )
)
# Headers of a client that asks for another request on its connection: only /score keeps connections
# open unasked.
KEPT = {"Connection": "keep-alive"}
# The process names of the front, of a template, and of the watcher of --reload. Every other child
# of the supervisor is a worker.
FRONT, TEMPLATE, WATCHER = "azml:front", "azml:template", "azml:watcher"

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


def path_in_server(path: Path | str) -> str:
    """What the server calls this path."""
    return "Z:" + str(path).replace("/", "\\") if IS_WINDOWS else str(path)


# ---- Processes


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

    def own_pid(self) -> int:
        """Pid of the supervisor, as the server itself has it."""
        if not IS_WINDOWS:
            return self.pid
        # tools/windows/run.c writes it.
        file = self.temporary / "pid"
        return int(eventually(lambda: file.exists() and file.read_text(), "the pid is written"))

    def workers(self) -> list[int]:
        """Pids of the worker processes, starting ones included."""
        if self.has_threads:
            return [self.own_pid()]
        return [child.pid for child in self._children() if child.name not in (FRONT, TEMPLATE, WATCHER)]

    def templates(self) -> list[int]:
        """Pids of the template processes (WORKER_PRELOAD), including those that still load the
        script."""
        return [child.pid for child in self._children() if child.name == TEMPLATE]

    def front(self) -> int:
        """Wait for a front. Returns its pid."""
        return eventually(lambda: [child.pid for child in self._children() if child.name == FRONT], "there is a front")[
            0
        ]

    def watcher(self) -> int:
        """Pid of the watcher of --reload."""
        (pid,) = eventually(lambda: [child.pid for child in self._children() if child.name == WATCHER], "a watcher")
        return pid

    def kill_front(self) -> int:
        """Kill the front, and wait until it is dead, so that ``front`` cannot return it any more.
        Returns its pid. The next front may not have begun."""
        front = self.front()
        os.kill(front, signal.SIGKILL)
        eventually(lambda: not is_running(front), "the front is dead")
        return front

    def suffer(self, deed: str) -> None:
        """Kill the "front" or a "worker", or reload the script ("HUP"), while two workers serve."""
        if deed == "front":
            self.kill_front()
        elif deed == "worker":
            os.kill(self.wait_for_workers(2)[0], signal.SIGKILL)
        else:
            self.signal(signal.SIGHUP)

    def _children(self) -> list[Stat]:
        """The living children of the supervisor. Waits while one of them has its parent's name, and may still become a
        worker, the front or a template: each gives itself a name as soon as it is forked."""

        def named() -> tuple[list[Stat]] | None:
            own_name = getattr(stat_of(self.pid), "name", None)
            children = [stat for stat in processes() if stat.parent == self.pid and stat.state != "Z"]
            return None if any(child.name == own_name for child in children) else (children,)

        return eventually(named, "every process of the server has a name")[0]

    def members(self) -> list[int]:
        """Pids of every living process of the command's session, grandchildren and orphans
        included."""
        return [stat.pid for stat in processes() if stat.session == self.pid and stat.state != "Z"]

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

    @contextlib.contextmanager
    def under_load(self) -> Iterator[list[Response]]:
        """Four clients post to /score without a pause until the end of the block, each on a
        connection that it keeps. The list grows with their answers."""
        answers: list[Response] = []

        def send(stop: threading.Event) -> None:
            with self.connect() as connection:
                while not stop.is_set():
                    answers.append(connection.exchange("POST", "/score"))

        with clients(send, 4):
            yield answers

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


def running(server: Server, name: str = "a") -> Connection:
    """A request to wait.py that runs, on a connection of its own."""
    connection = server.connect().send(request("POST", "/score", name.encode()))
    eventually((server.folder / f"{name}.started").exists, f"{name} runs")
    return connection
