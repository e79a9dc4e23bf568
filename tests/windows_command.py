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
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tools import windows_python

# What each signal is on Windows: a letter of run.exe.
EVENTS = {signal.SIGTERM: b"b", signal.SIGINT: b"c", signal.SIGQUIT: b"c", signal.SIGHUP: b"w", signal.SIGUSR2: b"s"}


def copy(source: int, target: int, ended: threading.Event) -> None:
    """Copy from a pipe to a file until the pipe ends, or is empty after the server has ended: Wine's own background
    programs, which the first server starts, keep its pipes open for as long as any server runs."""
    while True:
        if select.select([source], [], [], 0.1)[0]:
            piece = os.read(source, 65536)
            if not piece:
                return
            while piece:
                piece = piece[os.write(target, piece) :]
        elif ended.is_set():
            return


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
        ended = threading.Event()
        copies = [
            threading.Thread(target=copy, args=(child.stdout.fileno(), 1, ended), daemon=True),
            threading.Thread(target=copy, args=(child.stderr.fileno(), 2, ended), daemon=True),
        ]
        for thread in copies:
            thread.start()
        # In small steps, because a signal that another thread has got does not end a wait of this one, and its handler
        # would run only afterwards.
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(1)
                break
        ended.set()
        for thread in copies:
            # A child of the script that writes all the time may have the pipe still.
            thread.join(5)
    return code


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[1]), sys.argv[2:]))
