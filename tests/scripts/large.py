"""Answers with as many bytes as it is asked for, whole or as a stream, or with the length of the
body."""

import json

from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


def parts(total, size):
    for _ in range(total // size):
        yield b"x" * size


@rawhttp
def run(request):
    """``?total=``: bytes of the reply; ``&part=``: bytes of each part of a stream; without either
    the body's length."""
    total, part = (int(request.args.get(name, 0)) for name in ("total", "part"))
    if part:
        return AMLResponse(parts(total, part), 200)
    if total:
        return AMLResponse(b"x" * total, 200)
    return AMLResponse(json.dumps(len(request.get_data())), 200)
