"""Tells telemetry all kinds of things, as the request asks for."""

import asyncio
import logging

print("imported")
trace = logging.getLogger("azmlinfsrv.trace")


def init():
    print("initialised")


def parts():
    print("first part")
    yield "first,"
    print("second part")
    yield "second"


async def say_later():
    await asyncio.sleep(0)
    print("in a task")


def run(data):
    if data == "print":
        print("printed", 1)
        print()
    elif data == "records":
        trace.warning("careful %s", 1, extra={"list": [1, 2], "dict": {"a": 1}, "none": None, "yes": True})
        logging.getLogger("azmlinfsrv.print.child").error("a child")
        trace.debug("not this")
        logging.getLogger("elsewhere").error("not that")
        trace.info({"a": [1]})
        trace.info(5)
    elif data == "event":
        trace.info("hidden", extra={"microsoft.custom_event.name": "bought", "price": 3})
    elif data == "exception":
        try:
            raise ValueError("its own text")
        except ValueError:
            trace.exception("it went wrong", extra={"custom_dimensions": {"stage": "scoring"}})
    elif data == "raise":
        raise ZeroDivisionError("division by zero")
    elif data == "task":
        asyncio.run(say_later())
    elif data == "stream":
        from azureml_inference_server_http.api.aml_response import AMLResponse

        return AMLResponse(parts(), 200)
    elif data == "long":
        print("x" * 40_000)
        return "y" * 40_000
    return data
