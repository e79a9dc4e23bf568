"""Serves the quickstart example with the installed package, asks it once, and stops it: is this
wheel any good?

Needs nothing but the standard library and runs on every system; the workflow that builds wheels
calls it in an empty environment. ``python tools/try_wheel.py --worker_class thread``: options are
passed on. Exits with 1 and the server's output if something is not as it should be.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "quickstart"
EXPECTED = {"scores": [4.5, 45.0]}
# Limit in seconds for the first answer, and for the end. An emulated processor takes a minute on a busy machine.
PATIENCE = 300
if sys.platform == "win32":
    # Windows has no SIGTERM between programs. Ctrl-Break goes to all programs of a group.
    GROUP, END = subprocess.CREATE_NEW_PROCESS_GROUP, signal.CTRL_BREAK_EVENT
else:
    GROUP, END = 0, signal.SIGTERM


def port_of(server: subprocess.Popen[str]) -> int:
    """The port that the server has taken, by its banner. What it writes is passed on."""
    for line in server.stdout or ():
        print(line, end="")
        found = re.match(r"Score: +POST +\S+:(\d+)/score$", line)
        if found:
            return int(found[1])
    raise SystemExit("the server ended before it had a port")


def pass_on(server: subprocess.Popen[str]) -> None:
    """Write what the server writes, so that it never waits for a reader."""
    for line in server.stdout or ():
        print(line, end="")


def ask(port: int, server: subprocess.Popen[str]) -> object:
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


def command(installed: str, options: list[str]) -> list[str]:
    """The command that serves the example, for this version of the package."""
    started = [sys.executable, "-m", "azureml_inference_server_http", "--entry_script", "score.py"]
    if "--port" not in options:
        # 1.5.1 refuses it, even if another port follows.
        started += ["--port", "0"]
    if not installed.startswith("1."):
        started += ["--host", "127.0.0.1"]
    return started + options


def main() -> int:
    """Serve the example with the installed wheel, and check one answer."""
    started = command(version("azureml-inference-server-http"), sys.argv[1:])
    # Started in the example's folder, so that Python does not import the package from the source
    # tree.
    with subprocess.Popen(
        started, cwd=EXAMPLE, stdout=subprocess.PIPE, encoding="utf-8", creationflags=GROUP
    ) as server:
        try:
            port = port_of(server)
            threading.Thread(target=pass_on, args=(server,), daemon=True).start()
            found = ask(port, server)
            print(f"answered {found}")
            server.send_signal(END)
            code = server.wait(PATIENCE)
            print(f"ended with code {code}")
        finally:
            server.kill()
    return 0 if found == EXPECTED and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
