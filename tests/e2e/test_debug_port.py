"""``--debug_port``, and the configurations of docs/debugging.md, by the Debug Adapter Protocol as
an editor speaks it.

``test_debuggers.py`` has the client. Each wait in it ends at its own deadline; no test counts on
any time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, Server, eventually
from surroundings import free_port

pytest.importorskip("debugpy")

from test_debuggers import Editor, Endpoints  # needs debugpy

PAGE = Path(__file__).resolve().parents[2] / "docs" / "debugging.md"
SCRIPT = """import os

def init():
    global loaded
    loaded = os.getpid()

def run(data):
    return loaded
"""
IN_INIT, IN_RUN = 5, 8


@pytest.fixture
def script(tmp_path) -> Path:
    path: Path = tmp_path / "score.py"
    path.write_text(SCRIPT)
    return path


def configuration(request: str) -> dict[str, Any]:
    """The configuration for this request on the page, as people paste it."""
    block = re.search(r"```json\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert block
    (found,) = (each for each in json.loads(block[1])["configurations"] if each["request"] == request)
    return found


def port_of(server: Server) -> int:
    """The port that the server says a debugger can attach to."""
    said = eventually(lambda: re.search(r"can attach to 127\.0\.0\.1:(\d+)\.", server.stdout()), "it says the port")
    return int(said[1])


def name_of(pid: int) -> str:
    """The name of a process of the server, as soon as it has named itself."""
    comm = Path(f"/proc/{pid}/comm")
    return eventually(lambda: comm.read_text().strip() if comm.read_text().startswith("azml:") else "", "it has a name")


def attach(editor: Editor, arguments: dict[str, Any], script: Path, line: int) -> None:
    """Attach with a breakpoint at this line."""
    editor.send("initialize", adapterID="debugpy", pathFormat="path", linesStartAt1=True)
    editor.wait_for("response", "initialize")
    editor.send("attach", **arguments)
    set_breakpoint(editor, script, line)
    assert editor.wait_for("response", "attach")["success"]


def set_breakpoint(editor: Editor, script: Path, line: int) -> None:
    editor.wait_for("event", "initialized")
    editor.send("setBreakpoints", source={"path": str(script)}, breakpoints=[{"line": line}])
    assert editor.wait_for("response", "setBreakpoints")["success"]
    editor.send("configurationDone")


def stopped_line(editor: Editor, script: Path) -> tuple[int, int]:
    """Thread and line where the script stands, as soon as it does."""
    thread = editor.wait_for("event", "stopped")["body"]["threadId"]
    editor.send("stackTrace", threadId=thread, levels=1)
    frame = editor.wait_for("response", "stackTrace")["body"]["stackFrames"][0]
    assert frame["source"]["path"] == str(script)
    return thread, frame["line"]


@pytest.mark.any_worker_class
def test_a_debugger_attaches_to_a_server_that_runs(start, script):
    server = start(str(script), "--debug_port", "0", "--worker_count", "3")
    (worker,) = server.wait_for_workers(1)
    assert server.wait_for_record("--worker_count=3 counts as 1", level="W")
    assert server.wait_for_record("Scoring timeout is set to 0 ms (no limit)")
    assert server.score().json() == worker
    arguments = configuration("attach")
    with Editor(port_of(server)) as editor:
        attach(editor, {**arguments, "connect": {"host": "127.0.0.1", "port": port_of(server)}}, script, IN_RUN)
        reply = server.score_later()
        thread, line = stopped_line(editor, script)
        assert line == IN_RUN
        assert not reply.is_done
        editor.send("continue", threadId=thread)
        assert reply.result().json() == worker
    assert server.complaints() == ""


@pytest.mark.any_worker_class
def test_the_script_waits_for_the_debugger_if_it_is_asked_to(start, script):
    server = start(str(script), "--debug_port", "0", "--debug_wait", ready=False)
    with Editor(port_of(server)) as editor:
        assert "Found user script" not in server.stdout()
        attach(editor, {"justMyCode": True}, script, IN_INIT)
        thread, line = stopped_line(editor, script)
        assert line == IN_INIT
        assert server.get("/").status == 503
        editor.send("continue", threadId=thread)
        server.wait_until_ready()


def test_the_successor_of_a_worker_that_died_listens_on_the_same_port(start, script):
    port = free_port()
    server = start(str(script), "--debug_port", str(port))
    (worker,) = server.wait_for_workers(1)
    subprocess.run(["kill", "-9", str(worker)], check=True)
    eventually(lambda: server.stdout().count(f"can attach to 127.0.0.1:{port}.") == 2, "the successor listens", 60)
    assert server.wait_until_ready().score().json() != worker


def test_hup_keeps_the_worker_that_has_the_port_and_says_why(start, script):
    server = start(str(script), "--debug_port", str(free_port()))
    (worker,) = server.wait_for_workers(1)
    server.signal(signal.SIGHUP)
    server.wait_for_record("HUP does nothing: the new worker would need the port of --debug_port", level="W")
    assert server.score().json() == worker


# The command, with less patience for a port that is taken.
IMPATIENT = """
import sys
from azureml_inference_server_http.launch import cli
from azureml_inference_server_http.scripting import debug
debug.PORT_PATIENCE = 0.1
sys.exit(cli.main(sys.argv[4:]))
"""


def test_a_taken_port_stops_the_start_and_says_so(start, script):
    # The server's own port is taken for sure.
    server = start(str(script))
    impatient = (sys.executable, "-c", IMPATIENT)
    other = start(str(script), "--debug_port", str(server.port), ready=False, through=impatient)
    assert other.wait_for_exit(60) == 3
    assert f"--debug_port {server.port} cannot be opened" in other.stdout()


def test_the_launch_configuration_of_the_page_stops_the_worker_in_init(script, tmp_path):
    arguments = {**configuration("launch"), "cwd": str(script.parent), "console": "internalConsole"}
    served = free_port()
    arguments.update(python=[sys.executable], args=[*arguments["args"], "--host", "127.0.0.1", "--port", str(served)])
    arguments["env"] = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    endpoints = Endpoints(tmp_path)
    command = [sys.executable, "-m", "debugpy.adapter", "--host", "127.0.0.1", "--port", "0"]
    adapter = subprocess.Popen(command, env={**os.environ, **endpoints.environment})
    try:
        with ExitStack() as stack:
            editor = stack.enter_context(Editor(endpoints.wait_for_port()))
            editor.send("initialize", adapterID="debugpy", pathFormat="path", linesStartAt1=True)
            editor.wait_for("response", "initialize")
            editor.send("launch", **arguments)
            set_breakpoint(editor, script, IN_INIT)
            # The adapter asks for a session for every process that is forked: the front and the
            # worker. Either may come first; their names tell them apart.
            sessions = {}
            for _ in range(2):
                child = editor.wait_for("event", "debugpyAttach")["body"]
                session = stack.enter_context(Editor(child["connect"]["port"]))
                attach(session, child, script, IN_INIT)
                sessions[name_of(child["subProcessId"])] = session
            session = sessions["azml:worker-1"]
            thread, line = stopped_line(session, script)
            assert line == IN_INIT
            session.send("continue", threadId=thread)
            editor.send("disconnect", terminateDebuggee=True)
            editor.wait_for("response", "disconnect")
    finally:
        adapter.terminate()
        adapter.wait(PATIENCE)
