"""The Open Inference Protocol of the real command (docs/open-inference.md): routes, both forms of tensors, and errors.
``test_open_inference_limits.py`` has what holds as for /score."""

from __future__ import annotations

import json

import numpy
import pytest
from harness import eventually
from inference import DATA, INFER, JSON, ON, RAW, error, in_bytes, infer, infer_bytes, split

import azureml_inference_server_http

pytestmark = pytest.mark.any_worker_class


@pytest.fixture
def linear(shared):
    return shared("linear.py", *ON)


@pytest.fixture
def raw(shared):
    return shared("raw_v2.py", *ON)


# ---- What needs no request


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_describes_itself(linear, path):
    version = azureml_inference_server_http.__version__
    told = {"name": "azmlinfsrv", "version": version, "extensions": ["binary_tensor_data"]}
    assert linear.get(path).json() == told


def test_health_is_told_in_the_words_of_the_protocol(linear):
    assert linear.get("/v2/health/live").json() == {"live": True}
    assert linear.get("/v2/health/ready").json()["ready"] is True
    for path in ("/v2/models/linear/ready", "/v2/models/linear/versions/1/ready"):
        assert linear.get(path).json() == {"name": "linear", "ready": True}


def test_the_model_is_described_by_its_schemas(linear):
    description = {
        "name": "linear",
        "versions": ["1"],
        "platform": "azmlinfsrv_python",
        "inputs": [
            {"name": "data", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "offset", "datatype": "FP64", "shape": [1]},
        ],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 3]}],
    }
    for path in ("/v2/models/linear", "/v2/models/linear/versions/1"):
        assert linear.get(path).json() == description


def test_the_model_has_the_name_of_the_setting(start):
    server = start("linear.py", *ON, AZMLINFSRV_MODEL_NAME="my model")
    assert server.get("/v2/models/my%20model").json()["name"] == "my model"
    assert infer(server, "/v2/models/my%20model/infer", DATA).json()["model_name"] == "my model"


# ---- Tensors


def test_a_request_in_json_is_answered_in_json(linear):
    offset = {"name": "offset", "shape": [1], "datatype": "FP64", "data": [0.5]}
    for path in (INFER, "/v2/models/linear/versions/1/infer"):
        response = infer(linear, path, DATA, offset, id="42", outputs=[{"name": "output"}])
        assert response.status == 200, str(response)
        assert response.json() == {
            "model_name": "linear",
            "model_version": "1",
            "id": "42",
            "outputs": [{"name": "output", "datatype": "FP32", "shape": [1, 3], "data": [2.5, 4.5, 6.5]}],
        }


def test_the_same_script_answers_score(linear):
    assert linear.score(json.dumps({"data": [[1, 2, 3]]}), **JSON).json() == [[2, 4, 6]]


# 5 rows go through the socket, 100,000 through shared memory.
@pytest.mark.parametrize("rows", [5, 100_000])
@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_a_request_in_bytes_is_answered_in_bytes(linear, rows, padding):
    data = numpy.arange(rows * 3, dtype="<f4").reshape(rows, 3)
    described = [in_bytes("data", data, "FP32")]
    response = infer_bytes(
        linear,
        INFER,
        described,
        data,
        id="x" * padding,
        outputs=[{"name": "output", "parameters": {"binary_data": True}}],
    )
    assert response.status == 200, str(response)
    told, following = split(response)
    assert told["outputs"] == [
        {"name": "output", "datatype": "FP32", "shape": [rows, 3], "parameters": {"binary_data_size": data.nbytes}}
    ]
    assert following == (data * 2).tobytes()


# Through the socket, through shared memory, and one byte too few.
@pytest.mark.parametrize("rows", [1, 100_000])
def test_a_request_may_be_the_bytes_of_its_tensor_alone(shared, rows):
    server = shared("rows.py", *ON)
    data = numpy.arange(rows * 2, dtype="<f8").reshape(rows, 2) + 0.5
    headers = {"Inference-Header-Content-Length": "0"}
    response = server.request("POST", "/v2/models/rows/infer", data.tobytes(), headers)
    assert response.status == 200, str(response)
    told, following = split(response)
    assert [output["name"] for output in told["outputs"]] == ["sum", "rows"]
    assert following.startswith(data.sum(axis=1).tobytes())
    short = server.request("POST", "/v2/models/rows/infer", data.tobytes()[:-1], headers)
    assert short.status == 400
    assert error(short).startswith("Inference-Header-Content-Length is 0, but the body must be a multiple of 16 bytes")
    assert error(server.request("POST", "/v2/models/rows/infer", b"", headers)).startswith("The body is empty.")


def test_several_tensors_of_several_types_come_back_as_they_were_sent(raw):
    arrays = {
        "small": (numpy.array([1, 2, 3], "u1"), "UINT8"),
        "half": (numpy.array([0.5], "<f2"), "FP16"),
        "large": (numpy.arange(100_000, dtype="<i8"), "INT64"),
    }
    described = [in_bytes(name, array, datatype) for name, (array, datatype) in arrays.items()]
    response = infer_bytes(
        raw, RAW, described, *(array for array, _ in arrays.values()), parameters={"binary_data_output": True}
    )
    assert response.status == 200, str(response)
    told, following = split(response)
    assert [output["name"] for output in told["outputs"]] == list(arrays)
    assert following == b"".join(array.tobytes() for array, _ in arrays.values())


@pytest.mark.parametrize("count", [3, 200_000])
def test_the_script_may_change_its_tensors(raw, count):
    array = numpy.arange(count, dtype="<f8")
    response = infer_bytes(
        raw, RAW, [in_bytes("x", array, "FP64")], array, parameters={"do": "negate", "binary_data_output": True}
    )
    assert split(response)[1] == (-array).tobytes()


def test_texts_come_back_as_they_were_sent(raw):
    texts = {"name": "x", "shape": [2], "datatype": "BYTES", "data": ["Grüße", ""]}
    outputs = infer(raw, RAW, texts).json()["outputs"]
    assert outputs == [{"name": "x", "datatype": "BYTES", "shape": [2], "data": ["Grüße", ""]}]


def test_raw_v2_gets_all_of_the_request(raw):
    response = infer(
        raw,
        RAW,
        parameters={"do": "describe"},
        id="7",
        outputs=[{"name": "about"}],
        headers={"x-request-id": "r1", "X-Test": "t"},
    )
    [about] = response.json()["outputs"]
    assert about["data"] == ["7", "raw_v2", "1", "about", "r1", "t"]


def test_a_list_of_arrays_has_names_by_number(raw):
    tensors = [{"name": name, "shape": [1], "datatype": "INT8", "data": [1]} for name in "ab"]
    outputs = infer(raw, RAW, *tensors, parameters={"do": "list"}).json()["outputs"]
    assert [output["name"] for output in outputs] == ["output_0", "output_1"]


def test_a_tensor_of_one_byte_is_of_the_request_alone(raw):
    array = numpy.array([5], "i1")
    response = infer_bytes(raw, RAW, [in_bytes("x", array, "INT8")], array, parameters={"do": "negate"})
    assert response.json()["outputs"][0]["data"] == [-5]
    assert infer(raw, RAW, parameters={"do": "five"}).json()["outputs"][0]["data"] == [5]


# ---- Errors


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        (
            "GET",
            "/v2/models/other",
            404,
            'There is no model "other". This server has the model "linear" (--model_name).',
        ),
        ("POST", "/v2/models/other/infer", 404, 'There is no model "other".'),
        (
            "GET",
            "/v2/models/linear/versions/2/ready",
            404,
            'The model "linear" has no version "2". It has the version "1".',
        ),
        ("GET", "/v2/models", 404, "The requested URL was not found on the server."),
        ("GET", INFER, 405, "The method is not allowed for the requested URL."),
        ("POST", "/v2/models/linear", 405, "The method is not allowed for the requested URL."),
    ],
)
def test_wrong_paths_are_errors_of_the_protocol(linear, method, path, status, message):
    response = linear.request(method, path)
    assert response.status == status
    assert error(response).startswith(message)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", INFER, "POST, OPTIONS"), ("POST", "/v2/health/ready", "GET, HEAD, OPTIONS"), ("PUT", "/v2", "GET, HEAD")],
)
def test_a_wrong_method_hears_which_are_right(linear, method, path, allowed):
    response = linear.request(method, path, headers={"x-request-id": "abc"})
    assert response.status == 405
    assert (response["allow"] or "").startswith(allowed)
    assert response["x-request-id"] == "abc"


@pytest.mark.parametrize(
    ("body", "headers", "message"),
    [
        ("", {}, "The body is empty. Send an inference request in JSON."),
        ("{", {}, "The inference request is not JSON: "),
        ("{}\0", {}, "The inference request is not JSON: "),
        (
            "{}",
            {"Inference-Header-Content-Length": "x"},
            'Inference-Header-Content-Length is "x". It must be the length',
        ),
        (
            "{}",
            {"Inference-Header-Content-Length": "3"},
            "Inference-Header-Content-Length is 3, but the body has only 2",
        ),
        ("{}", {}, 'The inference request has no "inputs".'),
        (json.dumps({"inputs": [{**DATA, "datatype": "BF16"}]}), {}, "The tensor 'data' is BF16, which numpy does not"),
        (
            json.dumps({"inputs": [{**DATA, "shape": [3]}]}),
            {},
            "The input 'data' has the shape [3], but the model takes",
        ),
        (json.dumps({"inputs": []}), {}, "The input 'data' is missing. Send it as FP32 of the shape [-1, 3]."),
        (
            json.dumps({"inputs": [DATA], "outputs": [{"name": "x"}]}),
            {},
            "There is no output 'x'. The outputs are 'output'.",
        ),
    ],
)
def test_wrong_requests_are_explained(linear, body, headers, message):
    response = linear.request("POST", INFER, body, headers)
    assert response.status == 400
    assert error(response).startswith(message)
    assert response["x-ms-run-function-failed"] == "False"


def test_a_body_with_a_content_coding_is_refused(linear):
    response = linear.request("POST", INFER, "{}", {"Content-Encoding": "gzip"})
    assert response.status == 415
    assert error(response).startswith('The request body has the content coding "gzip"')


def test_an_exception_of_the_script_is_500(raw):
    response = infer(raw, RAW, parameters={"do": "fail"})
    assert response.status == 500
    assert error(response) == "An unexpected error occurred in scoring script. Check the logs for more info."
    assert response["x-ms-run-function-failed"] == "True"
    assert response["x-ms-run-error-location"] == "raw_v2.py:18 KeyError"


def test_a_result_that_has_no_tensors_is_500_and_the_log_says_why(raw):
    response = infer(raw, RAW, parameters={"do": "complex"})
    assert response.status == 500
    assert error(response) == "An unexpected internal error occurred. Check the logs for more info."
    eventually(lambda: "the tensor 'output' of the numpy type complex128" in raw.stdout(), "the log says why")


def test_score_of_a_raw_v2_script_says_where_to_go(raw):
    response = raw.score("{}")
    assert response.status == 400
    assert response.json()["message"].endswith(f"Send them to {RAW}.")
