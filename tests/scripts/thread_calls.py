"""What worker threads do differently from processes, on request."""

import os
import pathlib
import signal
import threading
import time


def init():
    # Windows has no such signal.
    if hasattr(signal, "SIGUSR2"):
        signal.signal(signal.SIGUSR2, lambda *_: pathlib.Path("handled").write_text(threading.current_thread().name))


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def run(data):
    verb, _, argument = data.partition(" ")
    if verb == "spin":
        spin(float(argument))
    elif verb == "guarded":
        try:
            spin(float(argument))
        except TimeoutError:
            return "struck"
    elif verb == "read":
        return pathlib.Path(argument).read_text()
    elif verb == "sleep":
        time.sleep(float(argument))
    elif verb == "exit":
        os._exit(int(argument))
    elif verb == "fork":
        child = os.fork()
        if child == 0:
            time.sleep(3600)
        return child
    return threading.current_thread().name
