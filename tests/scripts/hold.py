"""Answers at once, except to what begins with "hold": that waits for the file of its name. Notes
all it was asked."""

import os
import pathlib
import signal
import time


def init():
    global notes
    # As command line programs do; a worker must survive it. Windows has no such signal.
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    notes = os.open("notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def run(data):
    os.write(notes, f"{data}\n".encode())
    if data.startswith("hold"):
        while not pathlib.Path(data).exists():
            time.sleep(0.002)
    return os.getpid()
