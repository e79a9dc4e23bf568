"""The Open Inference Protocol of the real command: limits, headers, log lines, metrics, samples and Flask are as for
/score; and without the setting there is no such route."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy
import pytest
from harness import COMMAND, eventually
from inference import DATA, INFER, JSON, ON, RAW, error, in_bytes, infer, infer_bytes, split
from metrics_text import Scrape

pytestmark = pytest.mark.any_worker_class


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


def test_connections_stay_open(shared):
    linear = shared("linear.py", *ON)
    with linear.connect() as connection:
        for _ in range(2):
            body = json.dumps({"inputs": [DATA]}).encode()
            assert connection.exchange("POST", INFER, body, JSON).status == 200
        assert connection.exchange("GET", "/v2/health/ready").status == 200


def test_recorded_requests_can_be_replayed(start, tmp_path):
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


def test_a_script_with_flask_gets_a_request_context(start, tmp_path):
    text = (Path(__file__).parent.parent / "scripts" / "linear.py").read_text()
    text = text.replace("    data *= 2\n", "    data *= 2\n    assert flask.request.path == PATH, flask.request.path\n")
    path = tmp_path / "linear.py"
    path.write_text(f"import flask\nPATH = {INFER!r}\n{text}")
    server = start(str(path), *ON, "--error_details")
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
    assert infer(server, f"{INFER}/", DATA).status == 404
    failed = infer(server, "/v2/models/linear/versions/1/infer", DATA)
    assert failed.status == 500
    told = failed.json()
    assert told["error"].startswith(
        "An unexpected error occurred in scoring script. Check the logs for more info. Assert"
    )
    assert "/v2/models/linear/versions/1/infer" in told["traceback"]


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
