"""``--error_details`` and ``--client_errors``: what a reply tells about an error, to whom, and whose fault it is."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

pytestmark = pytest.mark.any_worker_class

SCRIPTS = {
    "text": """
import json

def init(): pass

def run(data):
    if data == "set":
        return {"predictions": [1, 2, 3, {4}]}
    if data == "own file":
        json.loads('{"a"')
    if data.startswith("<"):
        raise ValueError(data)
    return json.loads(data)
""",
    "flask": """
import flask, json

def init(): pass

def run(data):
    if data == "set":
        return {"predictions": [1, 2, 3, {4}]}
    if data.isdigit():
        flask.abort(int(data), "said by <the script>")
    if data.startswith("<"):
        raise ValueError(data)
    return json.loads(data)
""",
    "schema": """
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema
import numpy

def init(): pass

@input_schema("rows", NumpyParameterType(numpy.array([[1.5, 2.0]]), enforce_shape=True))
@input_schema("count", StandardPythonParameterType(1))
def run(rows, count=1):
    return {"sum": float(rows.sum()) / count}
""",
    "raw": """
from azureml_inference_server_http.api.aml_request import rawhttp

def init(): pass

@rawhttp
def run(request):
    return request.get_json()
""",
}
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
INTERNAL = "An unexpected internal error occurred. Check the logs for more info."
SCRIPT_ERROR = "An unexpected error occurred in scoring script. Check the logs for more info."
FAILED = "x-ms-run-function-failed"


@pytest.fixture(scope="module")
def server(shared, tmp_path_factory):
    """``server("text", "--client_errors")``: a server of this script."""
    folder = tmp_path_factory.mktemp("scripts")

    def get(name, *options):
        path = folder / f"{name}.py"
        path.write_text(SCRIPTS[name])
        return shared(str(path), *options)

    return get


@pytest.mark.parametrize("name", ["text", "flask"])
def test_the_place_of_a_value_that_cannot_be_sent_is_in_the_reply(server, name):
    reply = server(name, "--error_details").score("set")
    assert (reply.status, reply[FAILED]) == (500, "False")
    details = reply.json()
    assert list(details) == ["message", "error", "value"]
    assert (details["message"], details["value"]) == (INTERNAL, "$.predictions[3]: set")
    assert "Object of type set is not JSON serializable" in details["error"]
    assert server(name).score("set").json() == {"message": INTERNAL}


@pytest.mark.parametrize("name", ["text", "flask"])
def test_a_browser_gets_a_page_that_shows_text_as_text(server, name):
    script = "<script>alert(1)</script>"
    reply = server(name, "--error_details").score(script, Accept=BROWSER)
    assert (reply.status, reply["content-type"]) == (500, "text/html; charset=utf-8")
    assert reply["x-ms-run-error-location"].endswith("ValueError")
    assert "<script>" not in reply.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in reply.text
    assert f"{name}.py" in reply.text
    (style,) = re.findall(r"<style>(.*?)</style>", reply.text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert reply["content-security-policy"].startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    # Nothing is loaded, and nothing is there that the policy would have to stop.
    assert not re.search(r"\b(src|href|style|on\w+)=", reply.text)
    other = server(name, "--error_details").score(script, Accept="application/json, */*")
    assert other.json()["error"] == f"ValueError: {script}"
    assert server(name).score(script, Accept=BROWSER).json() == {"message": SCRIPT_ERROR}


@pytest.mark.parametrize("name", ["text", "flask"])
def test_a_body_that_is_no_json_is_the_clients_fault(server, name):
    reply = server(name, "--client_errors").score('{"a": 1,\n "b"}')
    assert (reply.status, reply[FAILED]) == (400, "False")
    assert reply.json()["message"].startswith("The request body is not JSON: Expecting ':' delimiter: line 2 column 5")
    assert reply["x-ms-run-error-location"] == f"{name}.py:13 JSONDecodeError"
    unchanged = server(name).score('{"a": 1,\n "b"}')
    assert (unchanged.status, unchanged[FAILED], unchanged.json()) == (500, "True", {"message": SCRIPT_ERROR})


def test_other_json_that_is_broken_is_the_scripts_fault(server):
    reply = server("text", "--client_errors").score("own file")
    assert (reply.status, reply[FAILED], reply.json()) == (500, "True", {"message": SCRIPT_ERROR})


@pytest.mark.parametrize(("status", "answered"), [(404, 404), (409, 409), (500, 500), (503, 500)])
def test_abort_of_the_script_is_answered_with_its_status(server, status, answered):
    reply = server("flask", "--client_errors").score(str(status))
    message = "said by <the script>" if answered < 500 else SCRIPT_ERROR
    assert (reply.status, reply.json()) == (answered, {"message": message})
    assert reply[FAILED] == str(answered == 500)
    assert server("flask").score(str(status)).status == 500


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"rows": "text"}, "The value of the parameter 'rows' does not match the schema: "),
        ({"rows": [[1], [2, 3]]}, "The value of the parameter 'rows' does not match the schema: "),
        ({"rows": [[1, 2, 3]]}, "The value of the parameter 'rows' does not match the schema: "),
    ],
)
def test_a_value_that_does_not_match_the_schema_is_the_clients_fault(server, body, message):
    headers = {"Content_Type": "application/json"}
    reply = server("schema", "--client_errors").score(json.dumps(body), **headers)
    assert (reply.status, reply[FAILED]) == (400, "False")
    assert reply.json()["message"].startswith(message)
    assert server("schema").score(json.dumps(body), **headers).status == 500
    # What run() itself raises is its own fault.
    own = server("schema", "--client_errors").score(json.dumps({"rows": [[1, 2]], "count": 0}), **headers)
    assert (own.status, own["x-ms-run-error-location"]) == (500, "schema.py:12 ZeroDivisionError")


def test_a_schema_body_that_python_cannot_hold_is_the_clients_fault(server):
    for body in (b"\xff", b"[" * 100_000):
        reply = server("schema", "--client_errors").score(body, Content_Type="application/json")
        assert reply.status == 400
        assert reply.json()["message"].startswith("POST body could not be decoded as JSON: ")
        assert server("schema").score(body, Content_Type="application/json").status == 500


def test_what_flask_says_of_a_raw_request_is_the_clients_fault(server):
    reply = server("raw", "--client_errors").score("{", Content_Type="application/json")
    assert (reply.status, reply[FAILED]) == (400, "False")
    assert server("raw", "--client_errors").score("{}").status == 415
    assert server("raw").score("{").status == 500
