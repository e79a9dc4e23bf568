"""Takes for ever, in the way it is asked to; "swallow" survives the scoring time-out."""

import threading
import time


def init():
    pass


def run(data):
    try:
        if data == "sleep":
            time.sleep(3600)
        if data == "spin":
            while True:
                pass
        if data == "lock":
            threading.Event().wait()
        if data == "native":
            sum(range(10**12))
    finally:
        print(f"finally of {data}")
    if data == "swallow":
        try:
            time.sleep(3600)
        except Exception as error:
            return type(error).__name__
    return data
