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
import selectors
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable

from conformance import client
from conformance.cases import Case, expand

READY = "ready for serving traffic"
START_SECONDS = 40.0
# Packages that scripts import or that affect replies. Both servers need the same versions.
PACKAGES = ("flask", "werkzeug", "inference-schema", "numpy", "pandas", "scikit-learn", "pillow")


class ServerProblem(Exception):
    """The server did not start or end in time. The text contains its output."""


class Server:
    """A server running one case. `with Server(...) as server:` ends it whatever happens."""

    def __init__(self, case: Case, python: str, folder: Path) -> None:
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
        self._process = subprocess.Popen(
            self._command(), cwd=self.directory, env=self._environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        for held in self._reserved:
            held.close()

    def wait_ready(self) -> None:
        """Returns when a worker answers `GET /`. ServerProblem when it ended or took too long."""
        deadline = time.monotonic() + START_SECONDS
        if self.case.ready == "line":
            self._wait(lambda: READY.encode() in self._output["stdout"], deadline, "start")
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
        streams = {"stdout": self._process.stdout, "stderr": self._process.stderr}
        for name, stream in streams.items():
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, name)
        while selector.get_map():
            selector.select()
            # stdout is read first. So if a line was seen on stdout, everything written to stderr
            # before it is read as well.
            for name in ("stdout", "stderr"):
                stream = streams[name]
                if stream is None or self._drain(name, stream.fileno()):
                    continue
                selector.unregister(stream)
                stream.close()
                streams[name] = None
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
        environment = {
            "PATH": f"{Path(self.python).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self._folder / "home"),
            "TMPDIR": str(self._folder / "tmp"),
            "LANG": "C.UTF-8",
            # Without this the published server's banner appears once per process, at a time that
            # depends on buffering.
            "PYTHONUNBUFFERED": "1",
        }
        environment.update({name: expand(value, self._values()) for name, value in self.case.env.items()})
        return environment


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
