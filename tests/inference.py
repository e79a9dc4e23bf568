"""Requests and replies of the Open Inference Protocol, as tests send and read them.

``e2e/test_open_inference.py`` and ``e2e/test_open_inference_limits.py`` import it. Runs in the test process.
"""

from __future__ import annotations

import json

ON = ("--protocols", "score,v2")
INFER = "/v2/models/linear/infer"
RAW = "/v2/models/raw_v2/infer"
DATA = {"name": "data", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
JSON = {"Content-Type": "application/json"}


def infer(server, path, *inputs, headers=None, **more):
    body = json.dumps({"inputs": list(inputs), **more})
    return server.request("POST", path, body, {**JSON, **(headers or {})})


def in_bytes(name, array, datatype):
    size = {"binary_data_size": array.nbytes}
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "parameters": size}


def infer_bytes(server, path, described, *arrays, **more):
    text = json.dumps({"inputs": described, **more}).encode()
    body = b"".join([text, *(array.tobytes() for array in arrays)])
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    return server.request("POST", path, body, headers)


def split(response):
    """The JSON of a reply, and the bytes behind it."""
    length = int(response["inference-header-content-length"])
    assert response["content-type"] == "application/octet-stream"
    return json.loads(response.body[:length]), response.body[length:]


def error(response):
    told = response.json()
    assert list(told) == ["error"]
    return told["error"]
