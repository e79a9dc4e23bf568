"""One running server of either kind: start, output lines, readiness, end. Owns its process group
and temporary folder.

Used by runner.py, one object per case and server. The server gets a session of its own, a clean
environment and a port the system chose; everything is waited for by its output or its exit, with a
bound. Does not look at what the output says, except for the line that announces a ready worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Protocol

from conformance import client
from conformance.cases import Case, expand

READY = "ready for serving traffic"
START_SECONDS = 40.0
# Packages that scripts import or that affect replies. Both servers need the same versions.
PACKAGES = ("flask", "werkzeug", "inference-schema", "numpy", "pandas", "scikit-learn", "pillow")


# Variables with such a name are read by the published server alone, and by no package that it imports.
_READ_BY_SERVER = ("AML_", "AZUREML_", "HTTP_X_MS_", "SCORING_", "SEPERATE_", "SERVER_", "SERVICE_", "WORKER_")
# A script that writes the names of modules into the folder in which the server was started. Those of gunicorn are left
# out, because it reads the current folder and variables when it is imported.
_SAY_MODULES = """
import sys
def init():
    left_out = ("azureml_inference_server_http", "gunicorn", __name__, "__main__")
    names = [name for name in sys.modules if not name.startswith(left_out)]
    with open("modules", "w", encoding="utf-8") as file:
        file.write(" ".join(names))
def run(data):
    return data
"""


class ServerProblem(Exception):
    """The server did not start or end in time. The text contains its output."""


class Process(Protocol):
    """A started process, as ``subprocess.Popen`` has it."""

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended. Returns its exit code. Raises subprocess.TimeoutExpired."""


class WarmStart:
    """Starts servers of one environment by forking a process that has made their imports (warm_start.py)."""

    def __init__(self, python: str, modules: Sequence[str]) -> None:
        """``modules`` are those that the process imports, in this order (``imported_modules``)."""
        self._python = python
        self._modules = modules

    def __enter__(self) -> WarmStart:
        self._folder = tempfile.TemporaryDirectory(prefix="conform-")
        folder = Path(self._folder.name)
        (folder / "modules").write_text("\n".join(self._modules), "utf-8")
        self._address = str(folder / "socket")
        self._process = subprocess.Popen(
            [self._python, str(Path(__file__).with_name("warm_start.py")), self._address, str(folder / "modules")],
            stdin=subprocess.PIPE, env=clean_environment(self._python, folder), start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not os.path.exists(self._address):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerProblem("warm_start.py does not start servers")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    @staticmethod
    def can_start(case: Case) -> bool:
        """Whether the server of this case may be forked. A module is run in another way, and other packages, or Python
        itself, may read a variable when they are imported."""
        return not case.module and all(name.startswith(_READ_BY_SERVER) for name in case.env)

    def start(self, command: list[str], folder: str, environment: dict[str, str], *outputs: int) -> Process:
        """Start a server. ``outputs`` are the descriptors of its standard output and error."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        request = {"command": command, "folder": folder, "environment": environment}
        socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], outputs)
        return _Forked(connection)


def imported_modules(python: str) -> list[str]:
    """The modules that a server of this environment has imported when it is ready, and that read no settings."""
    with tempfile.TemporaryDirectory(prefix="conform-") as folder:
        case = Case("warm-start", "", script=_SAY_MODULES)
        with Server(case, python, Path(folder)) as server:
            server.wait_ready()
            return Path(server.directory, "modules").read_text("utf-8").split()


class _Forked:
    """A server that warm_start.py has forked."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answers = connection.makefile("rb")
        self.pid = int(self._answers.readline())
        self._code: int | None = None
        self._lock = threading.Lock()

    def wait(self, timeout: float | None = None) -> int:
        with self._lock:
            if self._code is None:
                if not select.select([self._connection], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("azmlinfsrv", timeout or 0.0)
                self._code = int(self._answers.readline())
                self._connection.close()
        return self._code


class Server:
    """A server running one case. `with Server(...) as server:` ends it whatever happens."""

    def __init__(self, case: Case, python: str, folder: Path, warm: WarmStart | None = None) -> None:
        """``warm`` starts the server in place of a new interpreter, if it can start the server of this case."""
        self._warm = warm if warm is not None and warm.can_start(case) else None
        self.case = case
        self.python = python
        self.directory = str(folder / "app")
        self.environment_root = sys_prefix(python)
        self._folder = folder
        self._reserved = [_reserve(), _reserve()]
        self.port, self.health_port = (held.getsockname()[1] for held in self._reserved)
        self._output: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self._changed = threading.Condition()
        self._ended = False
        self._mark = {"stdout": 0, "stderr": 0}
        self._sentinels = 0

    def __enter__(self) -> Server:
        self._write_files()
        outputs = {name: os.pipe() for name in self._output}
        self._process = self._start(*(writer for _, writer in outputs.values()))
        self._streams = {name: reader for name, (reader, _) in outputs.items()}
        for _, writer in outputs.values():
            os.close(writer)
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()
        return self

    def _start(self, stdout: int, stderr: int) -> Process:
        if self._warm is not None:
            return self._warm.start(self._command(), self.directory, self._environment(), stdout, stderr)
        return subprocess.Popen(
            self._command(), cwd=self.directory, env=self._environment(), stdin=subprocess.DEVNULL,
            stdout=stdout, stderr=stderr, start_new_session=True,
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        self._kill()
        for held in self._reserved:
            held.close()

    def wait_ready(self) -> None:
        """Returns when a worker answers `GET /`. ServerProblem when it ended or took too long."""
        deadline = time.monotonic() + START_SECONDS
        if self.case.ready == "line":
            self._wait(lambda: self._output["stdout"].count(READY.encode()) >= self.case.workers, deadline, "start")
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        while True:
            with contextlib.suppress(OSError):
                if client.exchange(self.port, request, "GET", timeout=START_SECONDS)[0].status == "200":
                    return
            if self._ended or time.monotonic() > deadline:
                raise ServerProblem(self._story("did not become healthy"))
            with self._changed:
                self._changed.wait(0.02)

    def wait_exit(self, seconds: float = START_SECONDS) -> int:
        """Wait until the process has ended and its output has been read. Returns the exit code."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ServerProblem(self._story("did not end")) from None
        # Children may keep the pipes open for a moment. Output after the end of the parent does not
        # count.
        self._reader.join(2.0)
        return code

    def send_signal(self, name: str) -> None:
        """Sends a signal to the process that was started, or, with `group ` before it, to its
        children as well."""
        target, _, number = name.rpartition(" ")
        (os.killpg if target == "group" else os.kill)(self._process.pid, signal.Signals[f"SIG{number}"])

    def settle(self) -> None:
        """Waits until the log of earlier requests has been read: sends a request whose log line is
        known, and waits for that line."""
        self._sentinels += 1
        target = f"/swagger.json?version=mark-{self._sentinels}"
        request = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        client.exchange(self.port, request, "GET")
        line = f"GET {target} 404 ".encode()
        self._wait(lambda: line in self._output["stdout"][self._mark["stdout"] :], time.monotonic() + 10, "log")

    def new_output(self, stream: str) -> str:
        """The text written to `stdout` or `stderr` since the last call."""
        with self._changed:
            data, start = self._output[stream], self._mark[stream]
            self._mark[stream] = len(data)
        return data[start:].decode("utf-8", "backslashreplace")

    def _read_output(self) -> None:
        selector = selectors.DefaultSelector()
        for name, descriptor in self._streams.items():
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ, name)
        while selector.get_map():
            selector.select()
            # stdout is read first. So if a line was seen on stdout, everything written to stderr
            # before it is read as well.
            for name in ("stdout", "stderr"):
                descriptor = self._streams.get(name)
                if descriptor is None or self._drain(name, descriptor):
                    continue
                selector.unregister(descriptor)
                os.close(descriptor)
                del self._streams[name]
            with self._changed:
                self._changed.notify_all()
        self._process.wait()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _drain(self, name: str, descriptor: int) -> bool:
        """Read the bytes that have arrived. Returns false at the end of the stream."""
        while True:
            try:
                data = os.read(descriptor, 65536)
            except BlockingIOError:
                return True
            if not data:
                return False
            with self._changed:
                self._output[name] += data

    def _wait(self, condition: Callable[[], bool], deadline: float, what: str) -> None:
        with self._changed:
            while not condition():
                remaining = deadline - time.monotonic()
                if self._ended or remaining <= 0 or not self._changed.wait(remaining):
                    raise ServerProblem(self._story(f"waiting for {what}"))

    def _story(self, what: str) -> str:
        output = "\n".join(f"--- {name}\n{data.decode('utf-8', 'replace')}" for name, data in self._output.items())
        return f"{what}; {'ended' if self._ended else 'still running'}\n{output}"

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(5.0)

    def _write_files(self) -> None:
        for name in ("app", "home", "tmp"):
            (self._folder / name).mkdir(parents=True)
        files = dict(self.case.files)
        if self.case.script is not None:
            files.setdefault(self.case.entry or "main.py", self.case.script)
        for name, text in files.items():
            self.write_file(name, text)

    def write_file(self, name: str, text: str) -> None:
        """Writes a file below the working directory; `{dir}` in the text is that directory."""
        path = Path(self.directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(expand(text, self._values()).encode("utf-8"))

    def _values(self) -> dict[str, str]:
        return {"dir": self.directory, "port": str(self.port), "health": str(self.health_port)}

    def _command(self) -> list[str]:
        bin_folder = Path(self.python).parent
        command = (
            [self.python, "-m", "azureml_inference_server_http"]
            if self.case.module
            else [str(bin_folder / "azmlinfsrv")]
        )
        if self.case.entry:
            command += ["--entry_script", self.case.entry]
        if self.case.port:
            command += ["--port", str(self.port)]
        if self.case.health_port:
            command += ["--health_port", str(self.health_port)]
        return command + [expand(argument, self._values()) for argument in self.case.args]

    def _environment(self) -> dict[str, str]:
        added = {name: expand(value, self._values()) for name, value in self.case.env.items()}
        return {**clean_environment(self.python, self._folder), **added}


def clean_environment(python: str, folder: Path) -> dict[str, str]:
    """The environment variables of a server before those of its case."""
    return {
        "PATH": f"{Path(python).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "LANG": "C.UTF-8",
        # Without this the published server's banner appears once per process, at a time that
        # depends on buffering.
        "PYTHONUNBUFFERED": "1",
    }


def sys_prefix(python: str) -> str:
    """The folder of the virtual environment an interpreter belongs to."""
    return str(Path(python).parent.parent)


def _reserve() -> socket.socket:
    """Bind a socket without listening, so that no other process gets its port. A server with
    SO_REUSEADDR can still bind it."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("0.0.0.0", 0))
    return held


def environment(python: str) -> dict[str, str]:
    """Read the versions of packages that affect a server's answers from a virtual environment.
    Raises ServerProblem if one is missing."""
    code = (
        "import importlib.metadata as m, json, platform, sys; "
        "print(json.dumps({'python': platform.python_version()} | {n: m.version(n) for n in sys.argv[1:]}))"
    )
    if not (Path(python).parent / "azmlinfsrv").exists():
        raise ServerProblem(f"no azmlinfsrv beside {python}")
    done = subprocess.run([python, "-c", code, *PACKAGES], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerProblem(f"{python}: {done.stderr.strip().splitlines()[-1]}")
    versions: dict[str, str] = json.loads(done.stdout)
    return versions
