"""Takes too long in the way named in the body (the limit is 400 ms)."""

import select
import signal
import subprocess
import threading
import time

from azureml.contrib.services.aml_response import AMLResponse


def loop():
    end = time.monotonic() + 5
    while time.monotonic() < end:
        pass


def lock():
    held = threading.Lock()
    held.acquire()
    held.acquire(timeout=5)


def join():
    thread = threading.Thread(target=time.sleep, args=(2,), daemon=True)
    thread.start()
    thread.join()


def finally_():
    try:
        time.sleep(5)
    finally:
        print("finally ran")


def finally_result():
    try:
        time.sleep(5)
    finally:
        return "from finally"  # noqa: B012


def swallow():
    try:
        time.sleep(5)
    except Exception as error:
        return f"swallowed {isinstance(error, TimeoutError)}"


def cancel():
    signal.setitimer(signal.ITIMER_REAL, 0)
    time.sleep(0.8)
    return "cancelled"


def slow_parts():
    for part in (b"one ", b"two"):
        time.sleep(0.3)
        yield part


def nested():
    def deeper():
        time.sleep(5)

    deeper()


CASES = {
    "sleep": lambda: time.sleep(5),
    "loop": loop,
    "lock": lock,
    "subprocess": lambda: subprocess.run(["sleep", "5"], check=True),
    "join": join,
    "finally": finally_,
    "finally-result": finally_result,
    "swallow": swallow,
    "fast": lambda: "fast",
    "cancel": cancel,
    "stream": lambda: AMLResponse(slow_parts(), 200),
    "select": lambda: select.select([], [], [], 5),
    "nested-sleep": nested,
}


def init():
    pass


def run(raw_data):
    return CASES[raw_data]()
