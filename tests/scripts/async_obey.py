"""Awaits the Python statements that it gets, and answers with what they return or, as a stream, yield."""

import asyncio
import textwrap
import time  # noqa: F401
from pathlib import Path

ticks = 0
# Whoever waits here, until somebody sets the event.
waiting = []


async def init():
    global everybody, ticker
    everybody = asyncio.Event()
    ticker = asyncio.ensure_future(tick())


async def tick():
    global ticks
    try:
        while True:
            await asyncio.sleep(0.01)
            ticks += 1
    finally:
        Path("ticker.ended").touch()


async def wait_for_others(count):
    """Wait until this many calls do the same. Returns how many that were."""
    waiting.append(1)
    if len(waiting) >= count:
        everybody.set()
    await everybody.wait()
    return len(waiting)


async def wait_for_file(name):
    Path(name + ".started").touch()
    try:
        while not Path(name).exists():
            await asyncio.sleep(0.005)
    except asyncio.CancelledError:
        Path(name + ".cancelled").touch()
        raise
    return name


async def run(data):
    names = {**globals()}
    exec("async def body():\n" + textwrap.indent(data, "    "), names)
    result = names["body"]()
    return result if hasattr(result, "__aiter__") else await result
