"""The server as a Flask application in the caller's process, as people's own tests use it (contract
sections 5 to 11).

Owns what a test client sees; conversions have tests of their own. Each test loads its script by
``create()``, and what that changes in this process is put back.

One file of more than 400 lines, because all tests share what puts this process back.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import subprocess
import sys

import flask
import pytest
from inference_schema import schema_util

from azureml_inference_server_http.server.create_app import create

F, E, V = "x-ms-run-function-failed", "x-ms-run-fn-exec-ms", "x-ms-server-version"
R, M, C = "x-request-id", "x-ms-request-id", "x-ms-client-request-id"
BOTH = "x-ms-request-id and x-ms-client-request-id must not exceed 100 characters"
UNKNOWN, METHOD = b"The requested URL was not found on the server.", b"The method is not allowed"
ECHO = "def init(): pass\ndef run(data): return data"
HEADERS = "def init(): pass\ndef run(data, request_headers): return request_headers"
SCHEMA = """
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema
def init(): pass
@input_schema("a", StandardPythonParameterType(1))
@input_schema("b", StandardPythonParameterType("x"))
def run(a, b="y"): return [a, b]
"""
RAW = """
from azureml_inference_server_http.api.aml_request import rawhttp
def init(): pass
@rawhttp
def run(request):
    return {"method": request.method, "url": request.url, "data": request.get_data(as_text=True)}
"""
FORMS = RAW.replace('"method": request.method', '"form": request.form, "files": [*map(str, request.files)]')
RESPONSES = """
import flask
from azureml_inference_server_http.api.aml_response import AMLResponse
def init(): pass
def chunks(*parts):
    for part in parts:
        yield part or 1 / 0
def run(data):
    return {
        "own": lambda: AMLResponse("hi", "299 Fine", {"a": "b", "x-request-id": "own", "TraceId": "own"}),
        "busy": lambda: AMLResponse("hi", 503, run_function_failed=False),
        "json": lambda: flask.jsonify(a=1),
        "empty": lambda: AMLResponse("x", 204),
        "stream": lambda: AMLResponse(iter(["a", "", "b"]), 200),
        "late": lambda: AMLResponse(chunks("a", ""), 200),
        "never": lambda: AMLResponse(chunks(""), 200),
        "none": lambda: None,
        "set": lambda: {1},
        "g": lambda: [flask.g.request_id, flask.current_app.name, flask.request.endpoint],
    }[data]()
"""
FAILING = """
import asyncio
import flask
def init(): pass
def run(data):
    if data == "abort":
        flask.abort(404)
    raise eval(data)
"""


@pytest.fixture(autouse=True)
def process(monkeypatch, tmp_path):
    """A folder for the script, and a process that no script has changed."""
    for name in ("AZUREML_CONFIG_FILE", "HTTP_X_MS_SERVER_VERSION", "SCORING_TIMEOUT_MS", "AZMLINFSRV_ERROR_DETAILS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    monkeypatch.setitem(sys.modules, "entry_module", sys)  # so that the script's module is taken out again
    monkeypatch.delitem(sys.modules, "entry_module")
    monkeypatch.setattr("azureml_inference_server_http.api.aml_request._raw_requested", False)
    for memory in (schema_util.__functions_schema__, schema_util.__versions__):
        memory.clear()
    monkeypatch.setenv("AML_APP_ROOT", str(tmp_path))
    monkeypatch.setenv("AZUREML_ENTRY_SCRIPT", "score.py")


@pytest.fixture
def client(tmp_path):
    def load(script):
        (tmp_path / "score.py").write_text(script, encoding="utf-8")
        return create().test_client()

    return load


def fields(response, *names):
    return [response.headers.get(name) for name in names]


# Loading


def test_script_is_loaded_once(client):
    client = client("calls = []\ndef init(): calls.append('init')\ndef run(data): calls.append(data); return calls")
    assert client.post("/score", data="a").json == ["init", "a"]
    assert client.post("/score", data="b").json == ["init", "a", "b"]


def test_create_leaves_logging_print_and_environment_to_the_test(client, capsys, caplog):
    before = (print, logging.getLogger().handlers[:], logging.getLogger("azmlinfsrv").handlers[:])
    client = client("import logging\ndef init(): pass\ndef run(data): print(data); logging.warning('own'); return 1")
    client.post("/score", data="shown")
    assert before == (print, logging.getLogger().handlers, logging.getLogger("azmlinfsrv").handlers)
    assert capsys.readouterr().out == "shown\n"
    assert "own" in caplog.messages


@pytest.mark.parametrize(
    ("script", "setting", "logged"),
    [
        ("def init(): 1 / 0\ndef run(data): pass", None, "User's init function failed"),
        ("syntax error", None, "Failed to import user script"),
        ("def init(): pass", None, "does not have a run() function"),
        (ECHO, ("SCORING_TIMEOUT_MS", "soon"), "SCORING_TIMEOUT_MS"),
        (ECHO, ("AZUREML_ENTRY_SCRIPT", "other.py"), "There is no file at"),
    ],
)
def test_what_stops_the_server_exits_with_3(client, monkeypatch, caplog, script, setting, logged):
    if setting:
        monkeypatch.setenv(*setting)
    with pytest.raises(SystemExit) as caught:
        client(script)
    assert caught.value.code == 3
    assert caught.value.__cause__ is not None
    assert logged in caplog.text


def test_entry_has_the_application_and_the_package_imports_nothing(tmp_path):
    (tmp_path / "score.py").write_text(ECHO, encoding="utf-8")
    code = (
        "import sys; before = set(sys.modules); import azureml_inference_server_http as package\n"
        "assert set(sys.modules) - before == {package.__name__, '__future__'} - before, set(sys.modules) - before\n"
        "from azureml_inference_server_http.server.entry import app\n"
        "sys.stdout.write(app.test_client().post('/score', data='x').text)"
    )
    # Without AML_APP_ROOT the app root is the current folder.
    environment = {"AZUREML_ENTRY_SCRIPT": "score.py", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, timeout=50)
    assert (done.stdout, done.returncode) == (b'"x"', 0), done.stderr


# Routes


@pytest.mark.parametrize(
    ("method", "target", "status", "body", "flag", "identified"),
    [
        ("GET", "/", "200 OK", b"Healthy", None, True),
        ("OPTIONS", "/", "200 OK", b"", None, True),
        ("GET", "/livez", "200 OK", b"Alive", None, True),
        ("POST", "/", "405 METHOD NOT ALLOWED", METHOD, "False", False),
        ("PUT", "/score", "405 METHOD NOT ALLOWED", METHOD, "False", False),
        ("GET", "/nowhere", "404 NOT FOUND", UNKNOWN, "False", False),
        ("POST", "/score/", "404 NOT FOUND", UNKNOWN, "False", False),
        ("GET", "/%73core", "200 OK", b'"{}"', "False", True),
        ("HEAD", "/score", "405 METHOD NOT ALLOWED", b"", "False", True),
        ("OPTIONS", "/score", "200 OK", b"", "False", True),
        ("GET", "/swagger.json", "200 OK", b'"swagger": "2.0"', "False", True),
        ("HEAD", "/swagger.json", "200 OK", b"", "False", True),
        ("OPTIONS", "/swagger.json", "200 OK", b"", None, True),
        ("GET", "/swagger.json?version=3.0&version=2", "200 OK", b'"openapi": "3.0.3"', "False", True),
        ("GET", "/swagger.json?version=4", "404 NOT FOUND", b"[4] is not valid. Supported", "False", True),
    ],
)  # fmt: skip
def test_routes(client, method, target, status, body, flag, identified):
    response = client(ECHO).open(target, method=method)
    assert (response.status, response.headers.get(F)) == (status, flag)
    assert body in response.data
    assert response.data or not body
    assert [name in response.headers for name in (R, M, V)] == [identified] * 3
    assert E not in response.headers or response.data == b'"{}"'


def test_lengths_and_types(client):
    client = client(ECHO)
    head = client.head("/")
    assert fields(head, "Content-Length", "Content-Type") == ["7", "text/html; charset=utf-8"]
    refused = client.head("/score")
    assert fields(refused, "Content-Length", "Content-Type") == ["33", "application/json"]
    assert client.options("/").headers["Allow"] == "GET, HEAD, OPTIONS"
    assert client.post("/score", headers={"Upgrade": "websocket"}).status_code == 400


def test_swagger_version_the_script_cannot_have(client):
    script = SCHEMA.replace("StandardPythonParameterType(1)", "StandardPythonParameterType([1, 'x'])")
    response = client(script).get("/swagger.json")
    assert response.json == {
        "message": "Swagger version [2] is not supported for the scoring script. Supported swagger versions: [3, 3.1]."
    }


# Input


@pytest.mark.parametrize(
    ("request_", "result"),
    [
        ({"data": "é"}, "é"),
        ({"json": {"a": 1}}, '{"a": 1}'),
        ({"data": {"a": "b"}}, "a=b"),
        ({"data": {"a": (io.BytesIO(b"x"), "a.txt")}}, ""),
        ({"method": "GET", "query_string": "a=1&a=x&b=%C3"}, '{"a": [1, "x"], "b": "%C3"}'),
    ],
)
def test_text_input(client, request_, result):
    response = client(ECHO).open("/score", **{"method": "POST", **request_})
    assert (response.status, response.json, response.headers[F]) == ("200 OK", result, "False")
    assert re.fullmatch(r"\d+\.\d{3}", response.headers[E])


@pytest.mark.parametrize(
    ("script", "request_", "status", "message"),
    [
        (ECHO, {"data": b"\xff"}, 400, "Input cannot be decoded as UTF-8: 'utf-8' codec can't decode byte 0xff in"),
        (SCHEMA, {"data": "{}"}, 415, "Expects Content-Type to be application/json"),
        (SCHEMA, {"data": "", "content_type": "application/json"}, 400, "POST body is empty."),
        (SCHEMA, {"data": "{", "content_type": "application/json"}, 400, "POST body could not be decoded as JSON: "),
        (SCHEMA, {"json": {}}, 400, "A value is not provided for the 'a' parameter."),
        (SCHEMA, {"data": b"\xff", "content_type": "application/json"}, 500, "An unexpected internal error occurred."),
    ],
)
def test_refused_input(client, script, request_, status, message):
    response = client(script).post("/score", **request_)
    assert (response.status_code, response.headers[F], E in response.headers) == (status, "False", False)
    assert response.json["message"].startswith(message)
    assert response.headers[M] == response.headers[R]


def test_schema_input(client):
    client = client(SCHEMA)
    assert client.post("/score", json={"a": 5, "c": 1}).json == [5, "y"]
    assert client.get("/score?a=5&b=text").json == [5, "text"]


def test_request_headers(client):
    sent = client(HEADERS).post("/score", data="abc", headers={"x-all-caps": "1"}).json
    assert (sent["X-All-Caps"], sent["Content-Length"], sent["Host"]) == ("1", "3", "localhost")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_raw_input(client, method):
    response = client(RAW).open("/score?a=1", method=method, data="abc", base_url="https://h:1")
    assert response.json == {"method": method, "url": "https://h:1/score?a=1", "data": "abc"}


def test_raw_head_and_forms(client):
    head = client(RAW).head("/score")
    assert (head.status_code, head.data, int(head.headers["Content-Length"]) > 10) == (200, b"", True)
    form = client(FORMS).post("/score", data={"a": "b", "f": (io.BytesIO(b"x"), "f.txt")}).json
    assert (form["form"], form["files"]) == ({"a": "b"}, ["f"])


# Output and errors


@pytest.mark.parametrize(
    ("data", "status", "body", "flag"),
    [
        ("own", "299 Fine", b"hi", "False"),
        ("busy", "503 SERVICE UNAVAILABLE", b"hi", "True"),
        ("json", "200 OK", b'{"a":1}\n', None),
        ("empty", "204 NO CONTENT", b"", "False"),
        ("stream", "200 OK", b"ab", "False"),
        ("none", "200 OK", b"{}", "False"),
    ],
)
def test_results(client, data, status, body, flag):
    response = client(RESPONSES).post("/score", data=data)
    assert (response.status, response.data) == (status, body)
    assert response.headers.getlist(F) == ([flag] if flag else [])
    assert all(name in response.headers for name in (E, V, R, M))
    length = None if data in ("stream", "empty") else str(len(body))
    assert response.headers.get("Content-Length") == length


def test_own_headers_of_a_response(client):
    response = client(RESPONSES).post("/score", data="own", headers={"TraceId": "t"})
    assert response.headers["a"] == "b"
    assert response.headers.getlist(R) == response.headers.getlist(M) != ["own"]
    assert response.headers.getlist("TraceId") == ["own", "t"]


@pytest.mark.parametrize("data", ["set", "never"])
def test_results_that_cannot_be_sent(client, data, caplog):
    response = client(RESPONSES).post("/score", data=data)
    assert response.json == {"message": "An unexpected internal error occurred. Check the logs for more info."}
    assert (response.status_code, response.headers[F], E in response.headers) == (500, "False", False)
    assert "Encountered Exception: Traceback" in caplog.text


def test_stream_that_fails_midway_raises_in_the_test(client):
    response = client(RESPONSES).post("/score", data="late")
    with pytest.raises(ZeroDivisionError):
        response.get_data()


def test_flask_context(client):
    response = client(RESPONSES).post("/score", data="g", headers={R: "r"})
    assert response.json == ["r", "azureml_inference_server_http.server.create_app", "main.handle_score"]
    with client(RESPONSES) as kept:
        kept.post("/score?a=1", data="none", headers={R: "r"})
        assert (flask.request.args["a"], flask.g.request_id, flask.current_app) == ("1", "r", kept.application)
        assert flask.url_for("main.handle_score") == "/score"


@pytest.mark.parametrize("raised", ["abort", "ValueError('x')", "SystemExit(1)", "asyncio.CancelledError()"])
def test_script_errors(client, caplog, raised):
    response = client(FAILING).post("/score", data=raised)
    text = "An unexpected error occurred in scoring script. Check the logs for more info."
    assert (response.status_code, response.json) == (500, {"message": text})
    assert (response.headers[F], E in response.headers, R in response.headers) == ("True", False, True)
    assert response.headers["x-ms-run-error-location"].startswith("score.py:")
    assert "Caught an unhandled exception from the user script" in caplog.text


def test_time_out_error_of_the_script(client, monkeypatch):
    monkeypatch.setenv("SCORING_TIMEOUT_MS", "400")
    response = client(FAILING).post("/score", data="TimeoutError()")
    assert (response.json, response.headers[F]) == ({"message": "Scoring timeout after 400 ms"}, "True")


def test_error_details(client, monkeypatch):
    monkeypatch.setenv("AZMLINFSRV_ERROR_DETAILS", "true")
    assert "ValueError: x" in client(FAILING).post("/score", data="ValueError('x')").json["traceback"]


ASYNC = """
import asyncio
from flask import request
from azureml_inference_server_http.api.aml_response import AMLResponse
async def init():
    global ready
    await asyncio.sleep(0)
    ready = True
async def run(data):
    await asyncio.sleep(0)
    if data == "fails": raise KeyError("x")
    if data == "stream": return parts()
    if data == "response": return AMLResponse(parts(), 201)
    return [ready, data, request.path]
async def parts():
    for part in ("a", request.path):
        await asyncio.sleep(0)
        yield part
"""


def test_an_async_script_is_awaited(client):
    client = client(ASYNC)
    assert client.post("/score", data="x").json == [True, "x", "/score"]
    failed = client.post("/score", data="fails")
    assert (failed.status_code, failed.headers["x-ms-run-error-location"]) == (500, "score.py:11 KeyError")
    stream = client.post("/score", data="stream")
    assert (stream.status_code, stream.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert stream.data == b"a/score"
    response = client.post("/score", data="response")
    assert (response.status_code, response.data) == (201, b"a/score")
    asyncio.get_event_loop_policy().get_event_loop().close()
    asyncio.set_event_loop(None)


def test_interrupting_the_test_is_no_script_error(client):
    client = client(FAILING)
    with pytest.raises(KeyboardInterrupt):
        client.post("/score", data="KeyboardInterrupt()")
    with pytest.raises(pytest.fail.Exception):
        client.post("/score", data="__import__('pytest').fail.Exception('stop')")
    assert client.post("/score", data="ValueError()").status_code == 500


# Ids and version


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({}, ["new", "new", None]),
        ({R: "r", M: "m"}, ["r", "m", "m"]),
        ({R: "r", C: "c"}, ["r", "c", "c"]),
        ({M: "m", C: "c"}, ["new", "m", "c"]),
        ({R: ""}, [None, None, None]),
        ({R: "", M: "m"}, [None, "m", "m"]),
        ({M: "", C: ""}, ["new", "new", None]),
        ({R: " r ", M: "x" * 100}, ["r", "x" * 100, "x" * 100]),
    ],
)
def test_request_ids(client, caplog, sent, expected):
    client = client(ECHO)
    for response in (client.get("/", headers=sent), client.post("/score", data="x", headers=sent)):
        assert response.status_code == 200
        found = [value and re.sub("^[0-9a-f]{8}-[0-9a-f-]{27}$", "new", value) for value in fields(response, R, M, C)]
        assert found == expected
    assert ("x-ms-request-id header has been deprecated" in caplog.text) is bool(sent.get(M))


@pytest.mark.parametrize(
    ("sent", "message", "request_id"),
    [
        ({R: "x" * 101, C: "c"}, "x-request-id must not exceed 100 characters", None),
        ({R: "r", M: "x" * 101}, BOTH, "r"),
        ({R: "r", C: "x" * 101}, BOTH, "r"),
        ({R: "", C: "x" * 101}, BOTH, None),
    ],
)
def test_ids_that_are_too_long(client, sent, message, request_id):
    response = client(ECHO).post("/score", data="x", headers={**sent, "TraceId": "t"})
    assert (response.status_code, response.json, response.headers[F]) == (431, {"message": message}, "False")
    assert fields(response, R, M, C, "TraceId") == [request_id, None, None, "t"]
    assert V in response.headers


def test_server_version(client, monkeypatch):
    client = client("import os\ndef init(): pass\ndef run(data): os.environ['HTTP_X_MS_SERVER_VERSION'] = data")
    assert client.get("/").headers[V].startswith("azmlinfsrv/")
    monkeypatch.setenv("HTTP_X_MS_SERVER_VERSION", "before")  # so that it is removed at the end
    assert client.post("/score", data="own").headers[V] == "own"
    assert V not in client.post("/score", data="").headers
