"""A model that waits as long as the request says, as one on an accelerator does; the CPU stays free
meanwhile. Tells how long it has really been, as a sleep ends a little late.
"""

import json
import time


def init():
    pass


def predict(data):
    started = time.perf_counter()
    time.sleep(data["ms"] / 1000)
    return {"slept_ms": (time.perf_counter() - started) * 1000}


def run(data):
    return predict(json.loads(data))
