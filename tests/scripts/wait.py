"""Says that it has started (NAME.started, with its pid), waits for NAME.go, then answers with its
pid."""

import os
import pathlib
import time


def init():
    with open("inits", "a") as inits:
        inits.write(f"{os.getpid()}\n")


def run(data):
    pathlib.Path(f"{data}.starting").write_text(str(os.getpid()))
    os.replace(f"{data}.starting", f"{data}.started")
    while not os.path.exists(f"{data}.go"):
        time.sleep(0.005)
    return os.getpid()
