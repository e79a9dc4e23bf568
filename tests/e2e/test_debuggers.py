"""Debuggers as people use them: a launch of the module under debugpy, and a worker that connects
out to a waiting one.

The client side of the Debug Adapter Protocol is reduced to what an editor does to stop at one line
of the script.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from harness import PATIENCE, SCRIPTS, eventually

pytest.importorskip("debugpy")

SCRIPT = SCRIPTS / "pid.py"
# Suppresses debugpy's long warning about modules that are compiled into the interpreter.
QUIETLY = ("-Xfrozen_modules=off",) if sys.version_info >= (3, 11) else ()
# The line in run() where these tests stop.
LINE = next(number for number, text in enumerate(SCRIPT.read_text().splitlines(), 1) if "return" in text)


class Editor:
    """A session with a debug adapter, from its first request to its last event."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._stream = self._socket.makefile("rwb")
        self._sent = 0
        self._unread: list[dict] = []

    def __enter__(self) -> Editor:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, command: str, **arguments: object) -> None:
        self._sent += 1
        message = {"seq": self._sent, "type": "request", "command": command, "arguments": arguments}
        body = json.dumps(message).encode()
        self._stream.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._stream.flush()

    def wait_for(self, kind: str, name: str) -> dict:
        """Wait for the next event or response of this name. Messages that arrive before it are
        kept."""
        names = {"event": "event", "response": "command"}
        wanted = lambda message: message["type"] == kind and message[names[kind]] == name  # noqa: E731
        for message in self._unread:
            if wanted(message):
                self._unread.remove(message)
                return message
        while not wanted(message := self._read()):
            self._unread.append(message)
        return message

    def _read(self) -> dict:
        length = 0
        while (line := self._stream.readline()) != b"\r\n":
            assert line, "the adapter closed the session"
            if line.startswith(b"Content-Length:"):
                length = int(line.partition(b":")[2])
        return json.loads(self._stream.read(length))

    def attach(self, configuration: dict, stop_at: int | None = None) -> None:
        self.send("initialize", adapterID="debugpy", pathFormat="path", linesStartAt1=True)
        self.wait_for("response", "initialize")
        self.send("attach", **configuration)
        self.wait_for("event", "initialized")
        if stop_at:
            self.send("setBreakpoints", source={"path": str(SCRIPT)}, breakpoints=[{"line": stop_at}])
            assert self.wait_for("response", "setBreakpoints")["success"]
        self.send("configurationDone")
        assert self.wait_for("response", "attach")["success"]

    def stop_and_go_on(self, meanwhile: Callable[[], object] = lambda: None) -> int:
        """Wait until the breakpoint is reached, call ``meanwhile``, and continue the script.
        Returns the line."""
        stopped = self.wait_for("event", "stopped")["body"]
        self.send("stackTrace", threadId=stopped["threadId"], levels=1)
        frame = self.wait_for("response", "stackTrace")["body"]["stackFrames"][0]
        assert frame["source"]["path"] == str(SCRIPT)
        meanwhile()
        self.send("continue", threadId=stopped["threadId"])
        return frame["line"]


class Endpoints:
    """The file in which an adapter says where it listens, for editors and for debugged processes.

    An editor that connects between the opening of the two can end the thread that accepts editors.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "endpoints"
        # For the adapter, or for the process that starts it.
        self.environment = {"DEBUGPY_ADAPTER_ENDPOINTS": str(self._file)}

    def wait_for_port(self) -> int:
        """The port for editors, as soon as the adapter listens."""
        # The file exists a moment before its text.
        eventually(lambda: self._text().endswith("\n"), "the adapter listens")
        port: int = json.loads(self._text())["client"]["port"]
        return port

    def _text(self) -> str:
        return self._file.read_text() if self._file.exists() else ""


# Under a debugger no template is used, because debugpy could not follow workers that a template
# forks.
PRELOAD = pytest.mark.parametrize("preload", ["false", "true"])


@PRELOAD
def test_breakpoints_of_a_launch_under_debugpy_stop_run(start, tmp_path, preload):
    endpoints = Endpoints(tmp_path)
    under_debugger = (sys.executable, *QUIETLY, "-m", "debugpy", "--listen", "127.0.0.1:0", "--wait-for-client")
    command = (*under_debugger, "-m", "azureml_inference_server_http.amlserver")
    more = {"WORKER_PRELOAD": preload, **endpoints.environment}
    server = start(SCRIPT.name, "--graceful_timeout", "5", ready=False, command=command, **more)
    port = endpoints.wait_for_port()
    with ExitStack() as stack:
        launched = stack.enter_context(Editor(port))
        launched.attach({"justMyCode": False, "subProcess": True})
        # The adapter asks for a session of its own for every process that is forked: the front and
        # the worker.
        sessions = {}
        for _ in range(2):
            configuration = launched.wait_for("event", "debugpyAttach")["body"]
            session = sessions[configuration["subProcessId"]] = stack.enter_context(Editor(port))
            session.attach(configuration, LINE)
        server.wait_until_ready()
        (worker,) = server.workers()
        reply = server.score_later("x")
        assert sessions[worker].stop_and_go_on() == LINE
        assert reply.result().json() == worker


@PRELOAD
def test_a_worker_connects_to_a_debugger_that_waits_for_it(start, tmp_path, preload):
    endpoints = Endpoints(tmp_path)
    command = [sys.executable, "-m", "debugpy.adapter", "--host", "127.0.0.1", "--port", "0"]
    adapter = subprocess.Popen(command, env={**os.environ, **endpoints.environment})
    try:
        with Editor(endpoints.wait_for_port()) as editor:
            editor.send("initialize", adapterID="debugpy", pathFormat="path", linesStartAt1=True)
            editor.send("attach", listen={"host": "127.0.0.1", "port": 0}, justMyCode=False)
            waiting = editor.wait_for("event", "debugpyWaitingForServer")["body"]["port"]
            limit = {"SCORING_TIMEOUT_MS": "500", "AZUREML_DEBUG_PORT": str(waiting)}
            server = start(SCRIPT.name, ready=False, WORKER_PRELOAD=preload, **limit)
            editor.wait_for("event", "initialized")
            editor.send("setBreakpoints", source={"path": str(SCRIPT)}, breakpoints=[{"line": LINE}])
            editor.send("configurationDone")
            server.wait_until_ready()
            reply = server.score_later("x")
            # Two seconds after the limit the worker would be killed.
            spared = lambda: server.wait_for_record("It is not killed, because", level="W")  # noqa: E731
            assert editor.stop_and_go_on(spared) == LINE
            assert [reply.result().json()] == server.workers()
            said = [record for record in server.records(level="W") if "WORKER_PRELOAD has no effect" in record.message]
            assert len(said) == (preload == "true")
    finally:
        adapter.terminate()
        adapter.wait(PATIENCE)
