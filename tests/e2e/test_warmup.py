"""``--warmup_samples``: run() is called with samples before a worker is ready."""

from __future__ import annotations

import json
import struct

import pytest
from metrics_text import Scrape

CALLS = """
import os, json
from pathlib import Path
calls = []
def init(): pass
def run(data):
    if data == "calls":
        return calls
    calls.append(data)
    return json.loads(data)["number"] / 1
"""
RAW = """
from azureml.contrib.services.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
calls = []
def init(): pass
@rawhttp
def run(request):
    calls.append([request.method, request.args.get("q"), request.get_data(as_text=True)])
    if request.args.get("q") == "calls":
        return AMLResponse(calls[:-1], 200, json_str=True)
    return AMLResponse((part for part in ["a", "b"]), 200)
"""
ASYNC = """
calls = []
async def init(): pass
async def run(data):
    if data == "calls":
        yield repr(calls)
    else:
        calls.append(data)
        yield "x"
"""


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "samples"
    made.mkdir()
    return made


@pytest.mark.any_worker_class
def test_samples_are_called_before_the_worker_is_ready(start, script, folder):
    (folder / "a.json").write_text('{"number": 1}')
    (folder / "b.json").write_text('{"number": 2}')
    (folder / "c.request.json").write_text('{"path": "/swagger.json", "method": "GET"}')
    server = start(script(CALLS), "--warmup_samples", str(folder))
    assert server.score("calls").json() == ['{"number": 1}', '{"number": 2}']
    told = server.wait_for_record("Warm-up: 2 samples of").text
    assert told.endswith(", 1 left out, 0 failed.")
    # Nobody has asked for these calls: there is no line, and nothing is counted.
    lines = [record for record in server.records() if record.message.startswith("POST /score")]
    assert len(lines) <= 1
    assert Scrape(server.get("/metrics").text).requests(route="/score") == 1


@pytest.mark.any_worker_class
def test_a_sample_that_fails_is_named_and_the_worker_serves(start, script, folder):
    (folder / "fails.json").write_text('{"other": 1}')
    (folder / "broken.json").write_text("{")
    (folder / "works.json").write_text('{"number": 3}')
    server = start(script(CALLS), "--warmup_samples", str(folder))
    assert server.score("calls").json() == ['{"other": 1}', '{"number": 3}']
    failed = server.wait_for_record("The warm-up sample fails.json has failed", level="W")
    assert "KeyError: 'number'" in failed.text
    assert server.wait_for_record("The warm-up sample broken.json has failed: is not JSON", level="W")
    assert server.wait_for_record("Warm-up: 3 samples of").text.endswith("2 failed.")


def test_raw_scripts_get_the_whole_request_and_streams_are_read(start, script, folder):
    (folder / "a.request.json").write_text(json.dumps({"method": "OPTIONS", "query": "q=1", "body": "text"}))
    (folder / "b.txt").write_text("more")
    server = start(script(RAW), "--warmup_samples", str(folder), "--worker_threads", "2")
    assert server.get("/score?q=calls").json() == [["OPTIONS", "1", "text"], ["POST", None, "more"]]
    assert not [record for record in server.records() if record.level == "W"]


TENSORS = """
import numpy
from azureml_inference_server_http.api import raw_v2
calls = []
def init(): pass
@raw_v2
def run(request, request_headers):
    total = float(request.inputs["x"].sum())
    if total:
        calls.append([request.model_name, request_headers.get("X-Test"), total])
        return request.inputs
    return {"calls": numpy.array([repr(calls).encode()], object)}
"""


@pytest.mark.any_worker_class
@pytest.mark.parametrize("first", ["", "import flask\n"])
def test_tensors_are_samples_too(start, script, folder, first):
    one = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}
    described = json.dumps({"inputs": [{**one, "parameters": {"binary_data_size": 8}, "data": None}]})
    described = described.replace(', "data": null', "")
    (folder / "b.bin").write_bytes(described.encode() + struct.pack("<2f", 3, 4))
    path = "/v2/models/iris/versions/1/infer"
    headers = {"Inference-Header-Content-Length": str(len(described)), "X-Test": "b"}
    infer = {"path": "/v2/models/iris/infer", "body": {"inputs": [one]}}
    (folder / "a.request.json").write_text(json.dumps(infer))
    (folder / "b.request.json").write_text(json.dumps({"path": path, "headers": headers, "body_file": "b.bin"}))
    (folder / "c.request.json").write_text(json.dumps({**infer, "path": "/v2/models/other/infer"}))
    (folder / "d.request.json").write_text(json.dumps({**infer, "body": {"inputs": 1}}))
    (folder / "e.request.json").write_text(json.dumps({**infer, "body": "{"}))
    (folder / "e.response.json").write_text('{"status": 400}')
    options = ("--protocols", "score,v2", "--model_name", "iris", "--warmup_samples", str(folder))
    server = start(script(first + TENSORS), *options)
    asked = json.dumps({"inputs": [{**one, "data": [0, 0]}]})
    reply = server.request("POST", infer["path"], asked, {"Content-Type": "application/json"}).json()
    assert reply["outputs"][0]["data"] == ["[['iris', None, 3.0], ['iris', 'b', 7.0]]"]
    assert "its status is 400" in server.wait_for_record("sample d.request.json has failed", level="W").text
    assert server.wait_for_record("Warm-up: 4 samples of").text.endswith(", 1 left out, 1 failed.")


ARRAY = """
import numpy
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema
def init(): pass
@input_schema("x", NumpyParameterType(numpy.zeros(2, "f4")))
def run(x):
    print("run() got", x.tolist())
    return x
"""


def test_the_bytes_of_a_tensor_alone_are_a_sample(start, script, folder):
    (folder / "b.bin").write_bytes(struct.pack("<3f", 3, 4, 5))
    head = {"path": "/v2/models/iris/infer", "headers": {"Inference-Header-Content-Length": "0"}, "body_file": "b.bin"}
    (folder / "b.request.json").write_text(json.dumps(head))
    options = ("--protocols", "score,v2", "--model_name", "iris", "--warmup_samples", str(folder))
    server = start(script(ARRAY), *options)
    server.wait_for_record("run() got [3.0, 4.0, 5.0]")


def test_a_folder_of_which_nothing_reaches_run_is_told(start, script, folder):
    (folder / "a.request.json").write_text('{"path": "/v2/models/score/infer", "body": {"inputs": []}}')
    server = start(script(CALLS), "--warmup_samples", str(folder))
    assert "must be /score." in server.wait_for_record("There is no warm-up: none of the samples", level="W").text


def test_a_folder_without_samples_is_told(start, script, folder):
    (folder / "README.md").write_text("no sample")
    server = start(script(CALLS), "--warmup_samples", str(folder))
    assert f"{folder} has no samples" in server.wait_for_record("There is no warm-up", level="W").text
    assert "Warm-up: 0 samples" not in server.output()


def test_async_scripts_are_awaited(start, script, folder):
    (folder / "a.txt").write_text("one")
    server = start(script(ASYNC), "--warmup_samples", str(folder))
    assert server.score("calls").body == b"['one']"


def test_a_folder_that_is_missing_is_refused_at_start(start, script, folder):
    server = start(script(CALLS), "--warmup_samples", str(folder / "none"), ready=False)
    assert server.wait_for_exit() == 1
    assert "--warmup_samples" in server.output()


def test_a_failed_answer_is_no_failure_if_the_sample_expects_it(start, script, folder):
    text = "def init(): pass\ndef run(data): pass\n"
    (folder / "a.request.json").write_text(json.dumps({"method": "DELETE"}))
    (folder / "b.json").write_text("{}")
    (folder / "b.response.json").write_text('{"status": 404}')
    server = start(script(text), "--warmup_samples", str(folder))
    assert (
        "its status is 200, and 404 is expected" in server.wait_for_record("sample b.json has failed", level="W").text
    )
