"""The application for tests of scripts (``server.create_app``) and the server answer the same
requests alike.

Owns the table of scripts and requests. The application answers in a process of its own, as it
changes the process in which it loads a script. Left out is what may differ: ids that were made,
times, headers of the connection, and the reason phrase, which is the one of Flask.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest
from harness import Response, Start

pytestmark = pytest.mark.any_worker_class

SCRIPTS = {
    "text": """
import datetime
from azureml_inference_server_http.api.aml_response import AMLResponse

def init(): pass

def wait():
    raise TimeoutError

def run(data):
    results = {
        "none": lambda: None,
        "nan": lambda: float("nan"),
        "times": lambda: {"at": datetime.datetime(2026, 1, 2, 3, 4, 5), "keys": {1: True, None: [1.5, (2,)]}},
        "set": lambda: {"rows": [1, {2}]},
        "fails": lambda: 1 / 0,
        "exits": lambda: exit(3),
        "late": wait,
        "own": lambda: AMLResponse("hi", "299 Fine", {"a": "b, c", "x-request-id": "own", "TraceId": "own"}),
        "busy": lambda: AMLResponse({"a": 1}, 503, json_str=True),
        "empty": lambda: AMLResponse("x", 204),
        "stream": lambda: AMLResponse(iter(["a", "", "b"]), 200),
        "badheader": lambda: AMLResponse("x", 200, {"a b": "c"}),
        "pair": lambda: ({"a": 1}, 400),
    }
    return results[data]() if data in results else data
""",
    "schema": """
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema
import numpy

def init(): pass

@input_schema("rows", NumpyParameterType(numpy.array([[1.5, 2.0]])))
@input_schema("name", StandardPythonParameterType("x"))
@output_schema(StandardPythonParameterType({"sum": 1.0}))
def run(rows, name="nobody"):
    return {"sum": float(rows.sum()), "shape": rows.shape, "type": str(rows.dtype), "name": name}
""",
    "headers": """
def init(): pass

def run(data, request_headers):
    return [data, {name: value for name, value in request_headers.items() if name.startswith("X-")}]
""",
    "raw": """
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def init(): pass

@rawhttp
def run(request):
    text = request.get_data(as_text=True)
    return AMLResponse({"method": request.method, "path": request.full_path, "text": text}, 200, json_str=True)
""",
}

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=x"}
# Script, method, target, body, headers.
REQUESTS: list[tuple[str, str, str, bytes, dict[str, str]]] = [
    *(
        ("text", "POST", "/score", word.encode(), {})
        for word in (
            "none",
            "nan",
            "times",
            "set",
            "fails",
            "exits",
            "late",
            "own",
            "busy",
            "empty",
            "stream",
            "badheader",
        )
    ),
    ("text", "POST", "/score", b"pair", {}),
    ("text", "POST", "/score", b"", {}),
    ("text", "POST", "/score", "é\ud7ff".encode(), {"Content-Type": "text/plain; charset=latin-1"}),
    ("text", "POST", "/score", b"\xff\x00", {}),
    ("text", "POST", "/score", b"\xef\xbb\xbfa", {}),
    ("text", "POST", "/score", b"a=b&c=d", {"Content-Type": "application/x-www-form-urlencoded"}),
    ("text", "POST", "/score", b"--x--", FORM),
    ("text", "POST", "/score", b"--x--", {"Content-Type": "Multipart/Form-Data"}),
    ("text", "POST", "/score", b"none", {"x-request-id": "r", "x-ms-client-request-id": "c", "TraceId": "t"}),
    ("text", "POST", "/score", b"none", {"x-ms-request-id": "m"}),
    ("text", "POST", "/score", b"none", {"x-request-id": "r" * 101}),
    ("text", "GET", "/score?a=1&a=x&b=%C3&c=+1&=2", b"", {}),
    ("text", "GET", "/score", b"", {}),
    ("text", "HEAD", "/score", b"", {}),
    ("text", "OPTIONS", "/score", b"", {}),
    ("text", "PUT", "/score", b"", {}),
    ("text", "GET", "/nowhere", b"", {}),
    ("text", "GET", "/", b"", {}),
    ("text", "POST", "/", b"", {}),
    ("text", "GET", "/swagger.json", b"", {}),
    ("text", "GET", "/swagger.json?version=4", b"", {}),
    ("schema", "POST", "/score", b'{"rows": [[1, 2.5], [3, 4]], "name": "a"}', JSON),
    ("schema", "POST", "/score", b'{"rows": [[1, 2.5]], "other": NaN}', {"Content-Type": "Application/x+json; a=b"}),
    ("schema", "POST", "/score", b'{"rows": "text"}', JSON),
    ("schema", "POST", "/score", b'{"rows": [[1], [2, 3]]}', JSON),
    ("schema", "POST", "/score", b'{"name": "a"}', JSON),
    ("schema", "POST", "/score", b"[1]", JSON),
    ("schema", "POST", "/score", b'{"rows": [[1,]]}', JSON),
    ("schema", "POST", "/score", b"\xff", JSON),
    ("schema", "POST", "/score", b"", JSON),
    ("schema", "POST", "/score", b"{}", {}),
    ("schema", "GET", "/score?rows=[[1,2]]&name=3", b"", {}),
    ("schema", "GET", "/swagger.json?version=3", b"", {}),
    ("headers", "POST", "/score", b"x", {"X-All-Caps": "1", "x-ms.dot": " 2 "}),
    ("headers", "GET", "/score?a=1", b"", {"X-One": "1"}),
    ("raw", "POST", "/score?a=%20b", b"body", {}),
    ("raw", "GET", "/score", b"", {}),
    ("raw", "OPTIONS", "/score", b"", {}),
    ("raw", "HEAD", "/score", b"", {}),
]

# A program that reads requests as JSON from standard input, passes them to the application, and
# prints the answers as JSON.
APPLICATION = """
import base64, json, sys
from azureml_inference_server_http.server.entry import app
client, replies = app.test_client(), []
for method, target, body, headers in json.load(sys.stdin):
    reply = client.open(target, method=method, data=base64.b64decode(body) or None, headers=headers)
    replies.append([reply.status_code, list(reply.headers.items()), base64.b64encode(reply.data).decode()])
json.dump(replies, sys.stdout)
"""

# Headers that belong to the connection and not to the reply.
OF_THE_CONNECTION = {"date", "server", "connection", "transfer-encoding", "keep-alive"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def comparable(status: int, headers: list[tuple[str, str]], body: bytes) -> dict[str, Any]:
    """A reply without the parts that differ from call to call."""
    kept = []
    for name, value in headers:
        if name.lower() == "x-ms-run-fn-exec-ms":
            value = re.sub(r"\d", "0", value[-4:])
        if name.lower() not in OF_THE_CONNECTION:
            kept.append((name.lower(), UUID.sub("some id", value)))
    return {"status": status, "headers": sorted(kept), "body": body}


def of_server(reply: Response) -> dict[str, Any]:
    return comparable(reply.status, reply.headers, reply.body)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_application_for_tests_answers_as_the_server(start: Start, tmp_path, name):
    script = tmp_path / "score.py"
    script.write_text(SCRIPTS[name], encoding="utf-8")
    requests = [request[1:] for request in REQUESTS if request[0] == name]
    sent = [(method, target, base64.b64encode(body).decode(), headers) for method, target, body, headers in requests]
    environment = {**os.environ, "AZUREML_ENTRY_SCRIPT": str(script), "AML_APP_ROOT": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", APPLICATION],
        input=json.dumps(sent).encode(),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr.decode()
    server = start(str(script), AML_APP_ROOT=str(tmp_path))
    differing = []
    for request, (status, headers, body) in zip(requests, json.loads(done.stdout)):
        application = comparable(status, headers, base64.b64decode(body))
        served = of_server(server.connect().exchange(*request))
        if application != served:
            differing.append((request, application, served))
    assert not differing, "\n".join(map(str, differing))
