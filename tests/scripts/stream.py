"""Streams one part, waits for NAME.go, streams another and ends, or fails if it is called
"broken"."""

import pathlib
import time

from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


def parts(name):
    yield "first,"
    yield ""
    while not pathlib.Path(f"{name}.go").exists():
        time.sleep(0.005)
    if name == "broken":
        raise ValueError("broken in the middle")
    yield "sécond"


def run(data):
    return AMLResponse(parts(data), 200)
