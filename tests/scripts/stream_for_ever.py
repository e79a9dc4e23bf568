"""Streams until it is closed, little by little or a flood, and leaves the file "closed" then."""

import pathlib
import time

from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


def parts(part, pause):
    try:
        while True:
            yield part
            time.sleep(pause)
    finally:
        pathlib.Path("closed").touch()


def run(data):
    if data == "stream":
        return AMLResponse(parts("more,", 0.002), 200)
    if data == "flood":
        return AMLResponse(parts(b"x" * 65536, 0), 200)
    return "plain"
