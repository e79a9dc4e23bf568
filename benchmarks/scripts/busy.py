"""A model of 5 ms of CPU time: a loop that looks at the thread's own clock, so that other processes
on the machine make it slower but not shorter. Tells how long it took by the wall, from which the
client works out what the server added.
"""

import time

CPU_SECONDS = 0.005


def init():
    pass


def run(data):
    started = time.perf_counter()
    until = time.thread_time() + CPU_SECONDS
    while time.thread_time() < until:
        pass
    return {"run_ms": (time.perf_counter() - started) * 1000}
