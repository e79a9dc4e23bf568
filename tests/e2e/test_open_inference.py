"""The Open Inference Protocol of the real command (docs/open-inference.md): routes, both forms of tensors, errors, and
that everything else that holds for /score holds here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy
import pytest
from harness import COMMAND, eventually
from metrics_text import Scrape

import azureml_inference_server_http

pytestmark = pytest.mark.any_worker_class

ON = ("--protocols", "score,v2")
INFER = "/v2/models/linear/infer"
RAW = "/v2/models/raw_v2/infer"
DATA = {"name": "data", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def linear(shared):
    return shared("linear.py", *ON)


@pytest.fixture
def raw(shared):
    return shared("raw_v2.py", *ON)


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


# ---- What holds for /score


def test_the_limits_and_the_headers_of_score_hold(start):
    server = start(
        "raw_v2.py",
        *ON,
        *("--max_request_size", "1000", "--access_control_allow_origins", "https://a.com"),
        SCORING_TIMEOUT_MS="300",
    )
    response = infer(
        server, RAW, parameters={"do": "describe"}, headers={"x-request-id": "abc", "Origin": "https://a.com"}
    )
    assert (response["x-request-id"], response["x-ms-run-function-failed"]) == ("abc", "False")
    assert float(response["x-ms-run-fn-exec-ms"]) >= 0
    assert response["access-control-allow-origin"] == "https://a.com"
    assert response["x-ms-server-version"] is not None
    late = infer(server, RAW, parameters={"do": "sleep", "seconds": 20})
    assert (late.status, error(late)) == (500, "Scoring timeout after 300 ms")
    large = server.request("POST", RAW, "x" * 1001, JSON)
    assert large.status == 413
    assert error(large).startswith("The request body is larger than the 1000 bytes")
    preflight = server.request(
        "OPTIONS", RAW, headers={"Origin": "https://a.com", "Access-Control-Request-Method": "POST"}
    )
    assert (preflight.status, preflight["allow"]) == (200, "POST, OPTIONS")
    assert "POST" in (preflight["access-control-allow-methods"] or "")
    long_id = server.request("POST", RAW, "{}", {"x-request-id": "x" * 101})
    assert long_id.status == 431
    assert error(long_id).startswith("x-request-id")


def test_requests_have_log_lines_and_metrics(start):
    server = start("linear.py", *ON)
    assert infer(server, INFER, DATA).status == 200
    assert infer(server, "/v2/models/linear/versions/1/infer?a=1").status == 400
    server.wait_for_record(f"POST {INFER} 200")
    server.wait_for_record("POST /v2/models/linear/versions/1/infer?a=1 400")
    server.get("/v2/health/ready")

    def counted():
        seen = Scrape(server.get("/metrics").text)
        return seen if seen.requests(route="/v2/health/ready") >= 1 else None

    seen = eventually(counted, "all requests are counted")
    assert seen.requests(method="POST", route="/v2/models/{name}/infer", status="200") == 1
    assert seen.requests(method="POST", route="/v2/models/{name}/infer", status="400") == 1
    assert not any("/v2/health" in record.message for record in server.records())


def test_connections_stay_open(linear):
    with linear.connect() as connection:
        for _ in range(2):
            body = json.dumps({"inputs": [DATA]}).encode()
            assert connection.exchange("POST", INFER, body, JSON).status == 200
        assert connection.exchange("GET", "/v2/health/ready").status == 200


def test_recorded_requests_can_be_replayed(start, tmp_path):
    import subprocess

    folder = tmp_path / "samples"
    server = start("linear.py", *ON, "--record", str(folder))
    data = numpy.ones((2, 3), "<f4")
    response = infer_bytes(
        server, INFER, [in_bytes("data", data, "FP32")], data, parameters={"binary_data_output": True}
    )
    assert response.status == 200
    eventually(lambda: list(folder.glob("*.request.json")), "the request is recorded")
    [path] = folder.glob("*.request.json")
    assert json.loads(path.read_text())["path"] == INFER
    replayed = subprocess.run(
        [*COMMAND, "replay", "--url", f"http://127.0.0.1:{server.port}", "--samples", str(folder)],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


@pytest.mark.parametrize("change", ["import flask", "flask_hooks"])
def test_a_script_with_flask_gets_a_request_context(start, tmp_path, change):
    text = (Path(__file__).parent.parent / "scripts" / "linear.py").read_text()
    text = text.replace("    data *= 2\n", "    data *= 2\n    assert flask.request.path == PATH, flask.request.path\n")
    path = tmp_path / "linear.py"
    path.write_text(f"import flask\nPATH = {INFER!r}\n{text}")
    server = start(str(path), *ON, *(("--error_details",) if change == "flask_hooks" else ()))
    for rows in (2, 100_000):
        data = numpy.ones((rows, 3), "<f4")
        response = infer_bytes(
            server, INFER, [in_bytes("data", data, "FP32")], data, parameters={"binary_data_output": True}
        )
        assert response.status == 200, str(response)
        assert split(response)[1] == (data * 2).tobytes()
    assert infer(server, INFER, DATA, id="1").json()["id"] == "1"
    wrong = infer(server, INFER)
    assert (wrong.status, error(wrong)) == (400, "The input 'data' is missing. Send it as FP32 of the shape [-1, 3].")
    failed = infer(server, "/v2/models/linear/versions/1/infer", DATA)
    assert failed.status == 500
    assert failed.json()["error"].startswith("An unexpected error occurred in scoring script.")
    assert ("traceback" in failed.json()) == (change == "flask_hooks")


def test_a_script_without_tensors_is_named_in_the_log_and_to_the_client(start):
    server = start("echo.py", *ON)
    server.wait_for_record("Requests to /v2/models/echo/infer are refused, because run() has neither @input_schema")
    response = infer(server, "/v2/models/echo/infer")
    assert response.status == 400
    assert error(response).startswith(
        "The model takes no tensors, because run() has neither @input_schema nor @raw_v2."
    )


def test_off_there_are_no_such_routes(shared):
    server = shared("linear.py")
    for method, path in (("GET", "/v2"), ("GET", "/v2/health/ready"), ("POST", INFER)):
        response, unknown = server.request(method, path), server.request(method, "/unknown")
        without_date = [
            [field for field in reply.headers if field[0].lower() != "date"] for reply in (response, unknown)
        ]
        assert (response.status, response.body) == (404, unknown.body)
        assert without_date[0] == without_date[1]


def test_a_raw_v2_script_needs_the_protocol(start):
    server = start("raw_v2.py", ready=False)
    assert server.wait_for_exit() == 3
    assert "start the server with --protocols score,v2" in server.output()
