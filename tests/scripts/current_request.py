"""Answers with the request that run() is called for, and makes log records about it."""

import asyncio
import contextvars
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from azureml_inference_server_http.api import current_request

at_import = current_request()
logger = logging.getLogger("mine")
pool = ThreadPoolExecutor(1)
go_on = threading.Event()
finished = []
afterwards = []


def init():
    logger.warning("in init")
    finished.append(current_request())


def facts():
    request = current_request()
    if request is None:
        return None
    left = None if request.deadline is None else request.deadline - time.monotonic()
    return [request.request_id, request.client_request_id, request.trace_id, request.traceparent, left]


def in_thread(target):
    found = []
    thread = threading.Thread(target=lambda: found.append(target()))
    thread.start()
    thread.join()
    return found[0]


def outlive():
    """Goes on after the request that started this thread, until the next one."""
    go_on.wait(60)
    afterwards.append(current_request())


async def in_task():
    return [await asyncio.to_thread(facts), await asyncio.create_task(asyncio.sleep(0, facts()))]


def stream():
    for number in range(3):
        logger.warning("part %d", number)
        yield f"{facts()[0]};"


def run(data, request_headers):
    if data == "stream":
        # Imports Flask, so that this and all later calls go through it.
        from azureml_inference_server_http.api.aml_response import AMLResponse

        return AMLResponse(stream(), 200)
    if data == "raise":
        raise ValueError("in run")
    if data == "log":
        print("printed")
        logger.warning("logged")
        logger.warning("its own", extra={"request_id": "mine"})
        in_thread(lambda: logger.warning("in a thread"))
        pool.submit(logger.warning, "in a pool").result()
        context = contextvars.copy_context()
        in_thread(lambda: context.run(logger.warning, "in a copy of the context"))
        return None
    if data == "outlive":
        threading.Thread(target=outlive).start()
        return None
    if data == "afterwards":
        go_on.set()
        while not afterwards:
            time.sleep(0.001)
        return afterwards
    return {
        "outside": [at_import, finished],
        "here": facts(),
        "thread": in_thread(facts),
        "pool": [pool.submit(facts).result(), list(pool.map(lambda _: facts(), [1]))[0]],
        "tasks": asyncio.run(in_task()),
        "traceparent": {name.lower(): value for name, value in request_headers.items()}.get("traceparent"),
    }
