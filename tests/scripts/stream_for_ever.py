"""Streams until it is closed, and leaves the file "closed" then."""

import pathlib
import time

from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


def parts():
    try:
        while True:
            yield "more,"
            time.sleep(0.002)
    finally:
        pathlib.Path("closed").touch()


def run(data):
    return AMLResponse(parts(), 200) if data == "stream" else "plain"
