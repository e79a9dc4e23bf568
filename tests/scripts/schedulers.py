"""Leaves a greenlet or an asyncio task in the main thread, by SCHEDULER, which appends to the file
"ticks".

run() waits by means of the same scheduler and returns how often it has ticked, or has the greenlet
or task raise something.
"""

import asyncio
import os
import threading
import time

kind, _, patched = os.environ["SCHEDULER"].partition(" ")
if kind == "gevent":
    import gevent
    import gevent.monkey

    if patched:
        gevent.monkey.patch_all()
if kind == "eventlet":
    import eventlet

    if patched:
        eventlet.monkey_patch()

orders = []
ticks = 0


def tick():
    global ticks
    ticks += 1
    with open("ticks", "a") as file:
        file.write(f"{os.getpid()}\n")
    if orders:
        raise orders.pop()


def tick_for_ever(sleep):
    while True:
        tick()
        sleep(0.01)


async def tick_as_task():
    while True:
        tick()
        await asyncio.sleep(0.01)


def init():
    global wait, loop
    if kind == "gevent":
        wait = time.sleep if patched else gevent.sleep
        gevent.spawn(tick_for_ever, wait)
    elif kind == "eventlet":
        wait = time.sleep if patched else eventlet.sleep
        eventlet.spawn(tick_for_ever, wait)
    else:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.create_task(tick_as_task())
        wait = wait_with_loop
        if kind == "thread":
            # The loop is idle when the worker begins to wait, and then belongs to this thread.
            threading.Thread(target=run_later, daemon=True).start()


def wait_with_loop(seconds):
    loop.run_until_complete(asyncio.sleep(seconds))


def run_later():
    time.sleep(0.3)
    loop.run_forever()


def run(data):
    if data == "ticks":
        return ticks
    if data == "wait":
        before = ticks
        wait(0.1)
        return ticks - before
    orders.append(eval(data))
    return "ordered"
