"""Serves the quickstart example with the installed package, asks it once, and stops it: is this
wheel any good?

Needs nothing but the standard library and runs on every system; the workflow that builds wheels
calls it in an empty environment. ``python tools/try_wheel.py --worker_class thread``: options are
passed on. Exits with 1 and the server's output if something is not as it should be.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
EXPECTED = {"scores": [4.5, 45.0]}
# Limit in seconds for the first answer, and for the end.
PATIENCE = 60


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, server: subprocess.Popen[bytes]) -> object:
    """The example's answer, as soon as it answers."""
    body = (EXAMPLE / "sample-request.json").read_bytes()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/score", body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                return json.load(reply)
        except urllib.error.URLError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def main() -> int:
    """Serve the example with the installed wheel, and check one answer."""
    port = free_port()
    command = [sys.executable, "-m", "azureml_inference_server_http", "--port", str(port), "--host", "127.0.0.1"]
    # Started in the example's folder, so that Python does not import the package from the source
    # tree.
    with subprocess.Popen([*command, "--entry_script", "score.py", *sys.argv[1:]], cwd=EXAMPLE) as server:
        try:
            found = ask(port, server)
            print(f"answered {found}")
            # On Windows the process is killed, because a process without a console of its own
            # cannot be asked to end.
            server.send_signal(signal.SIGTERM)
            code = server.wait(PATIENCE)
        finally:
            server.kill()
    return 0 if found == EXPECTED and (code == 0 or sys.platform == "win32") else 1


if __name__ == "__main__":
    sys.exit(main())
