"""benchmarks: a candidate is started, asked for its health, measured as a whole, and leaves nothing
behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import server
from benchmarks.candidates import Candidate
from benchmarks.environments import Installed
from benchmarks.server import ServerFailed, Work

# A server with a child in a session of its own; both would run for ever, and the child does not
# heed TERM.
SERVER = """
import http.server, subprocess, sys
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, start_new_session=True)
process.stdout.readline()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FOLDER", tmp_path)
    monkeypatch.setattr(server, "LOGS", tmp_path / "logs")


def candidate(program: str) -> Candidate:
    # Braces are doubled, because server.py replaces names in single braces.
    program = program.replace("{", "{{").replace("}", "}}")
    return Candidate("one", "a server", (sys.executable, "-c", program, "{port}"), health="/health")


def serve(program: str, tmp_path: Path) -> server.Server:
    return server.Server(candidate(program), Installed(tmp_path, {}), Work(tmp_path / "score.py"))


def test_all_its_processes_are_measured_and_ended(tmp_path: Path) -> None:
    running = serve(SERVER, tmp_path)
    try:
        processes = running.processes()
        assert len(processes) == 2
        memory = running.memory()
        assert 0 < memory["pss_mib"] <= memory["rss_mib"]
        assert 0 < running.start_seconds < server.START_SECONDS
    finally:
        running.stop()
    assert running.processes() == []
    assert [pid for pid in processes if server.read_process(pid)] == []


def test_the_processor_time_of_all_its_processes_is_counted(tmp_path: Path) -> None:
    busy = "any(time.process_time() >= 0.2 for _ in iter(int, 1))"
    running = serve(f"import time; {busy}" + SERVER.replace("print('up'", f"{busy}; print('up'"), tmp_path)
    try:
        used = running.cpu_time()
        # The server and its child each used 0.2 s before the server was healthy.
        assert used.user + used.system >= 0.38
        assert used.user >= 0
        assert used.system >= 0
    finally:
        running.stop()


def test_one_that_ends_at_its_start_is_told_with_its_words(tmp_path: Path) -> None:
    with pytest.raises(ServerFailed, match="ended at its start: no such option"):
        serve("raise SystemExit('no such option')", tmp_path)
