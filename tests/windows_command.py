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
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from processes import processes

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


def others() -> bool:
    """Whether the session of this process has another one: the server, whose end Wine knows of a moment before Linux,
    or a child of the script. False in a session that others have made, such as that of a shell."""
    own = os.getpid()
    return own == os.getsid(0) and any(
        stat.session == own and stat.pid != own and stat.state != "Z" for stat in processes()
    )


def main(folder: Path, options: list[str]) -> int:
    environment = windows_python.environment(folder)
    # Not left in the environment, because Wine makes one set of its own programs for each value.
    folder_name = environment.pop("TMPDIR", None)
    if folder_name is not None:
        environment["RUN_TEMP"] = windows_python.windows_path(folder_name) if folder_name else ""
        if folder_name:
            # Where harness.py looks for it.
            environment["RUN_PID"] = windows_python.windows_path(f"{folder_name}/pid")
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
        deadline = time.monotonic() + 10
        while others() and time.monotonic() < deadline:
            time.sleep(0.02)
    return code


if __name__ == "__main__":
    os._exit(main(Path(sys.argv[1]), sys.argv[2:]))
