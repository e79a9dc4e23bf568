"""What the scoring scripts of the chaos runs do when they are asked: note that they were, then
serve, fail or die.

Shared by the scripts beside it, which differ only in how they are called. Runs in the workers.
"""

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import threading
import time
import zlib

# Seconds for which a thread is stuck: far beyond all limits.
LEFT_BEHIND = 20

journal = -1
calls = itertools.count(1)


class CallFails(Exception):
    """The whole call fails, whoever else shares it."""


def open_journal():
    global journal
    journal = os.open(os.environ["CHAOS_JOURNAL"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@contextlib.contextmanager
def noted(*orders):
    """A call of run() for these orders: its beginning is in the journal, in one write, and its end, unless it
    fails."""
    # The number of the main thread is that of its process.
    call = f"{threading.get_native_id()} {next(calls)}"
    ids = dict.fromkeys(order["id"] for order in orders)
    now = time.monotonic_ns()
    os.write(journal, "".join(f"{id} {call} {now}\n" for id in ids).encode())
    yield
    os.write(journal, f"- {call} {time.monotonic_ns()}\n".encode())


def perform(order):
    """Carry out an order of ``tests/chaos/orders.py`` in a call of its own."""
    with noted(order):
        return do(order)


async def perform_async(order):
    with noted(order):
        return await do_async(order)


def do(order):
    return globals()[f"do_{order['deed']}"](order)


async def do_async(order):
    """The same without keeping others from running, except for deeds that are meant to."""
    if order["deed"] == "sleep":
        await asyncio.sleep(order["amount"] / 1000)
        return do_echo(order)
    if order["deed"] == "hang":
        await asyncio.sleep(3600)
    if order["deed"] == "stream":
        return async_parts(order)
    return do(order)


def do_echo(order):
    padding = order["padding"].encode()
    return {"id": order["id"], "size": len(padding), "crc": zlib.crc32(padding)}


def do_sleep(order):
    time.sleep(order["amount"] / 1000)
    return do_echo(order)


def do_reply(order):
    return {"id": order["id"], "padding": (order["id"] + " ") * (order["amount"] // (len(order["id"]) + 1))}


def do_stream(order):
    return (f"{order['id']}:{number}\n" for number in parts(order["amount"]))


def parts(count):
    for number in range(count):
        time.sleep(0.002)
        yield number


async def async_parts(order):
    for number in range(order["amount"]):
        await asyncio.sleep(0.002)
        yield f"{order['id']}:{number}\n"


def do_fail(order):
    raise ValueError(order["id"])


def do_fail_call(order):
    raise CallFails(order["id"])


def do_exit(order):
    os._exit(order["amount"])


def do_segfault(order):
    ctypes.string_at(0)


def do_abort(order):
    os.abort()


def do_hang(order):
    # A process is interrupted, or killed. A thread is left behind and keeps its memory: it has to
    # return before memory is compared.
    is_process = threading.current_thread() is threading.main_thread()
    time.sleep(3600 if is_process else LEFT_BEHIND)


def do_stuck(order):
    # Out of reach of the scoring time-out, like native code that does not return.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    do_hang(order)
