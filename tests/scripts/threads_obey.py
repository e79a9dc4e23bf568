"""Executes the Python statements that it gets, and answers with what they return or, as a stream, yield. Its calls may
run at once."""

import os  # noqa: F401
import textwrap
import threading
import time
from pathlib import Path

from azureml_inference_server_http.api import current_request  # noqa: F401
from azureml_inference_server_http.api.aml_response import AMLResponse

# How many calls have waited for others.
waiting = []
local = threading.local()


def init():
    local.loader = True


def wait_for_others(count):
    """Wait until this many calls do the same. Returns how many that were."""
    waiting.append(1)
    while len(waiting) < count:
        time.sleep(0.002)
    return len(waiting)


def wait_for_file(name):
    Path(name + ".started").touch()
    while not Path(name).exists():
        time.sleep(0.002)
    return name


def spin():
    while True:
        pass


def run(data):
    names = {**globals()}
    exec("def body():\n" + textwrap.indent(data, "    "), names)
    result = names["body"]()
    return AMLResponse(result, 200) if hasattr(result, "send") else result
