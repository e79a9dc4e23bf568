"""Stands for ``azmlinfsrv`` in the tests when the server runs in a Windows Python under Wine: ``make test-windows``.

Owns what differs between the two systems as the harness sees them. The signals TERM, INT and QUIT become Ctrl-Break and
Ctrl-C, by way of tools/windows/run.c; the folder for temporary files gets the name that Windows uses; standard streams
become pipes, because Windows Python does not start with files under Wine. Everything else is the server's, its bytes
too. It ends with the server's exit code, and if it is killed, the server ends.

``python tests/windows_command.py FOLDER OPTIONS``, with the folder that tools/windows_python.py has made.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tools import windows_python

# What each signal is on Windows: a letter of run.exe.
EVENTS = {signal.SIGTERM: b"b", signal.SIGINT: b"c", signal.SIGQUIT: b"c", signal.SIGHUP: b"w", signal.SIGUSR2: b"s"}


def copy(source: int, target: int) -> None:
    while piece := os.read(source, 65536):
        while piece:
            piece = piece[os.write(target, piece) :]


def main(folder: Path, options: list[str]) -> int:
    environment = windows_python.environment(folder)
    if "TMPDIR" in environment:
        folder_name = environment["TMPDIR"]
        environment["RUN_TEMP"] = windows_python.windows_path(folder_name) if folder_name else ""
    command = [
        *windows_python.command(folder, "run.exe", "python.exe"),
        "-m",
        "azureml_inference_server_http",
        *options,
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0) as child:
        assert child.stdin
        assert child.stdout
        assert child.stderr
        orders = child.stdin.fileno()
        for number, letter in EVENTS.items():
            signal.signal(number, lambda *_, letter=letter: os.write(orders, letter))
        copies = [
            threading.Thread(target=copy, args=(child.stdout.fileno(), 1), daemon=True),
            threading.Thread(target=copy, args=(child.stderr.fileno(), 2), daemon=True),
        ]
        for thread in copies:
            thread.start()
        # In small steps, because a signal that another thread has got does not end a wait of this one, and its handler
        # would run only afterwards.
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(1)
                break
        for thread in copies:
            # A child of the script may have the pipe still.
            thread.join(5)
    return code


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[1]), sys.argv[2:]))
