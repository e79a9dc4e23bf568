"""Writes to the log in every way that a script has, and fails in every way."""

import ctypes
import logging
import os
import sys
import threading
import time
import traceback
import warnings

logger = logging.getLogger("mine")
print("at the top")


def init():
    print("in init\nsecond line")
    sys.stdout.write("written to stdout\n")
    warnings.warn("a warning", stacklevel=1)
    os.write(1, b"raw bytes to 1\n")
    os.write(2, b"raw bytes to 2\n")
    thread = threading.Thread(target=lambda: 1 / 0, name="failing")
    thread.start()
    thread.join()


def run(data):
    if data == "crash":
        ctypes.string_at(0)
    if data == "sleep":
        for _ in range(6000):
            time.sleep(0.01)
    if data == "raise":
        raise ValueError(f"{data}\nsecond line")
    if data.startswith("flood"):
        print(f"{data} begin\n" + 'größer "quoted" \\ \x1b[31m\n' * 300 + f"{data} end")
        print(f"{data} to stderr", file=sys.stderr)
        logger.warning("%s\nwarned", data, extra={"rows": 17})
        try:
            raise KeyError(data)
        except KeyError:
            traceback.print_exc()
            logger.exception("caught")
    return data
