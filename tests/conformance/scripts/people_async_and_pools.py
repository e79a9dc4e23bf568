"""Coroutines by run_until_complete on a loop made in init(), and a thread pool."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor


def init():
    global loop, pool
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    pool = ThreadPoolExecutor(3)


async def double(x):
    await asyncio.sleep(0)
    return x * 2


async def everything(values):
    return await asyncio.gather(*(double(value) for value in values))


def run(raw_data):
    values = json.loads(raw_data)
    doubled = asyncio.get_event_loop().run_until_complete(everything(values))
    return list(pool.map(lambda value: value + value, doubled))
