"""A model that waits as long as the request says, as one on an accelerator does; the CPU stays free meanwhile."""

import json
import time


def init():
    pass


def predict(data):
    time.sleep(data["ms"] / 1000)
    return {"slept_ms": data["ms"]}


def run(data):
    return predict(json.loads(data))
