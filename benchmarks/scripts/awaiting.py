"""A model that is asked over the network: run() awaits as long as the request says. Tells how long it
has really been.
"""

import asyncio
import json
import time


def init():
    pass


async def run(data):
    started = time.perf_counter()
    await asyncio.sleep(json.loads(data)["ms"] / 1000)
    return {"slept_ms": (time.perf_counter() - started) * 1000}
