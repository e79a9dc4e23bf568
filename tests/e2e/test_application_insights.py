"""What arrives at Application Insights, by way of the real command and a receiver in the test process."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from harness import eventually
from receiver import Receiver, data

KEY = "AAAAAAAA-0000-4000-8000-00000000000b"
# Telemetry is gathered for this many milliseconds in tests.
SOON = "20"


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as receiver:
        yield receiver


def connection_string(receiver):
    return f"InstrumentationKey={KEY};IngestionEndpoint={receiver.url}/;"


def options(receiver, **environment):
    return {
        "APPLICATIONINSIGHTS_CONNECTION_STRING": connection_string(receiver),
        "AML_APP_INSIGHTS_ENABLED": "true",
        "OTEL_BSP_SCHEDULE_DELAY": SOON,
        **environment,
    }


@pytest.fixture
def insights(start, receiver):
    """A server whose telemetry goes to the receiver, which has nothing else."""
    receiver.requests.clear()
    return start("telemetry.py", **options(receiver))


def messages(receiver):
    return [data(item)["message"] for item in receiver.of_kind("Message")]


def message(receiver, text):
    """The item of a message, as soon as it has come."""

    def find():
        return [item for item in receiver.of_kind("Message") if data(item)["message"] == text]

    return eventually(find, f"the message {text!r}")[0]


@pytest.mark.any_worker_class
def test_a_request_is_reported_with_true_times_and_ids(insights, receiver):
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{span}-01", "x-request-id": "mine", "x-ms-client-request-id": "theirs"}
    assert insights.request("POST", "/score?a=%C3%A9", "print", headers).status == 200
    [item] = receiver.wait_for("Request")
    assert item["iKey"] == KEY.lower()
    assert item["tags"]["ai.operation.id"] == trace
    assert item["tags"]["ai.operation.parentId"] == span
    assert item["tags"]["ai.operation.name"] == "/score"
    assert item["tags"]["ai.cloud.role"] == "ML service"
    request = data(item)
    assert (request["name"], request["responseCode"], request["success"]) == ("/score", "200", True)
    assert re.fullmatch(r"0\.00:00:\d\d\.\d{6}", request["duration"])
    assert request["duration"] != "0.00:00:00.000000"
    properties = request["properties"]
    assert properties["Request Id"] == "mine"
    assert properties["Client Request Id"] == "theirs"
    assert properties["Response Value"] == '"print"'
    assert properties["url"] == f"http://127.0.0.1:{insights.port}/score?a=é"
    assert properties["resultCode"] == "200"
    assert properties["http_method"] == "POST"
    # What the script printed meanwhile belongs to it.
    printed = message(receiver, "printed 1")
    assert printed["tags"]["ai.operation.id"] == trace
    assert printed["tags"]["ai.operation.parentId"] == request["id"]
    assert data(printed)["properties"]["code.function.name"] == "print_to_logger"
    assert message(receiver, "")["tags"]["ai.operation.id"] == trace


@pytest.mark.any_worker_class
def test_failures_are_reported_with_their_own_text(insights, receiver):
    assert insights.request("POST", "/score", "raise", {"x-request-id": "failed"}).status == 500
    [item] = receiver.wait_for("Request")
    assert (data(item)["responseCode"], data(item)["success"]) == ("500", False)
    [exception] = receiver.wait_for("Exception")
    assert exception["tags"]["ai.operation.id"] == item["tags"]["ai.operation.id"]
    assert exception["tags"]["ai.operation.parentId"] == data(item)["id"]
    [details] = data(exception)["exceptions"]
    assert details["typeName"] == "UserScriptException"
    assert details["message"] == "ZeroDivisionError: division by zero"
    assert "telemetry.py" in details["stack"]
    properties = data(exception)["properties"]
    assert properties["Request Id"] == "failed"
    assert "'Request Id': 'failed'" in properties["custom_dimensions"]


@pytest.mark.any_worker_class
def test_log_records_of_the_script(insights, receiver):
    insights.request("POST", "/score", "records")
    careful = data(message(receiver, "careful 1"))
    assert careful["severityLevel"] == "2"
    properties = careful["properties"]
    assert properties["code.file.path"].endswith("telemetry.py")
    assert properties["code.function.name"] == "run"
    assert (properties["list"], properties["dict"], properties["yes"]) == ("(1, 2)", "{'a': 1}", "True")
    assert "none" not in properties
    assert data(message(receiver, "a child"))["severityLevel"] == "3"
    assert message(receiver, '{"a": [1]}')
    assert message(receiver, "5")
    assert not {"not this", "not that"} & set(messages(receiver))
    insights.request("POST", "/score", "event")
    [event] = receiver.wait_for("Event")
    assert (data(event)["name"], data(event)["properties"]["price"]) == ("bought", "3")
    insights.request("POST", "/score", "exception")
    [exception] = receiver.wait_for("Exception")
    assert data(exception)["exceptions"][0]["message"] == "its own text"
    assert data(exception)["properties"]["Log Message"] == "it went wrong"
    assert data(exception)["properties"]["stage"] == "scoring"


@pytest.mark.any_worker_class
def test_import_init_tasks_and_streams(insights, receiver):
    assert message(receiver, "imported")["tags"]["ai.operation.id"] == "0" * 32
    assert message(receiver, "initialised")
    insights.request("POST", "/score", "task")
    insights.request("POST", "/score", "stream")
    requests = {data(item)["id"]: item for item in receiver.wait_for("Request", 2)}
    parents = [message(receiver, text)["tags"]["ai.operation.parentId"] for text in ("in a task", "first part")]
    assert set(parents) == set(requests)
    # A generator runs later than run(), and is still part of the request.
    assert message(receiver, "second part")["tags"]["ai.operation.parentId"] == parents[1]
    assert data(requests[parents[1]])["properties"]["Response Value"] == "first,second"


@pytest.mark.any_worker_class
def test_long_texts_are_cut(insights, receiver):
    insights.request("POST", "/score", "long")
    assert message(receiver, "x" * 32768)
    [item] = receiver.wait_for("Request")
    assert data(item)["properties"]["Response Value"] == '"' + "y" * 8191


@pytest.mark.any_worker_class
@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [("init_fails.py", "UserScriptException", ""), ("import_fails.py", "UserScriptImportException", "")],
)
def test_a_script_that_cannot_be_loaded_is_reported_before_the_server_ends(start, receiver, script, kind, text):
    receiver.requests.clear()
    server = start(script, ready=False, **options(receiver, OTEL_BSP_SCHEDULE_DELAY="60000"))
    assert server.wait_for_exit() == 3
    [exception] = receiver.of_kind("Exception")
    [details] = data(exception)["exceptions"]
    assert details["typeName"] == kind
    assert script in details["stack"]
    assert data(exception)["properties"]["Request Id"] == "Unknown"


@pytest.mark.any_worker_class
def test_model_data(start, receiver):
    receiver.requests.clear()
    server = start("echo.py", **options(receiver, AML_MDC_STORAGE_ENABLED="true", WORKSPACE_NAME="w"))
    server.request("POST", "/score", "a" * 9000)
    properties = data(message(receiver, "model_data_collection"))["properties"]
    assert properties["Workspace Name"] == "w"
    assert len(properties["custom_dimensions"]) == 8192
    # As properties of their own, input and prediction do not take each other's room.
    assert properties["Input"] == properties["Prediction"] == '"' + "a" * 8191
    assert properties["Models"] == "()"


def test_replies_are_not_reported_if_they_must_not_be(start, receiver):
    receiver.requests.clear()
    server = start("echo.py", **options(receiver, APP_INSIGHTS_LOG_RESPONSE_ENABLED="false"))
    server.request("POST", "/score", "secret")
    [item] = receiver.wait_for("Request")
    assert "Response Value" not in data(item)["properties"]


@pytest.mark.parametrize("off", [{"AML_APP_INSIGHTS_ENABLED": "false"}, {"OTEL_SDK_DISABLED": "True"}])
def test_nothing_is_sent_unless_it_is_on(start, receiver, off):
    receiver.requests.clear()
    server = start("telemetry.py", **options(receiver, **off))
    server.request("POST", "/score", "print")
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    assert receiver.requests == []


def test_probes_and_unknown_paths_are_not_reported(insights, receiver):
    for method, target in (("GET", "/"), ("GET", "/livez"), ("GET", "/none"), ("PUT", "/score"), ("HEAD", "/score")):
        insights.request(method, target)
    insights.request("GET", "/swagger.json")
    found = [(data(item)["name"], data(item)["responseCode"]) for item in receiver.wait_for("Request", 2)]
    assert found == [("/score", "405"), ("/swagger.json", "200")]


def test_the_key_never_appears_in_the_log(start):
    def refuse(received):
        errors = [{"index": 0, "statusCode": 400, "message": f"Unknown key {KEY.lower()}"}]
        return 400, {}, json.dumps({"errors": errors}).encode()

    with Receiver(refuse) as receiver:
        string = connection_string(receiver)
        server = start("echo.py", "--appinsights_connection_string", string, OTEL_BSP_SCHEDULE_DELAY=SOON)
        server.request("POST", "/score", "x")
        record = server.wait_for_record("refused 1 telemetry item, which is lost: status 400: Unknown key ***")
        assert record.logger == "azmlinfsrv.telemetry"
        assert KEY not in server.output()
        assert KEY.lower() not in server.output()


def test_a_bad_connection_string_is_one_line_and_the_script_is_served(start):
    server = start("echo.py", "--appinsights_connection_string", "InstrumentationKey=secret-thing")
    assert server.request("POST", "/score", "x").status == 200
    lines = [record.message for record in server.records() if "connection_string" in record.message]
    reason = "its InstrumentationKey is no UUID. Application Insights is off."
    assert lines == [f"--appinsights_connection_string cannot be used: {reason}"]
    assert "secret-thing" not in server.output()


@pytest.mark.any_worker_class
@pytest.mark.parametrize("harm", ["refuses", "hangs", "nonsense"])
def test_a_receiver_that_fails_delays_neither_requests_nor_the_end(start, harm):
    def answer(received):
        return {"hangs": None, "nonsense": (206, {}, b"nonsense")}[harm]

    with Receiver(answer) as receiver:
        environment = options(receiver)
        if harm == "refuses":
            environment["APPLICATIONINSIGHTS_CONNECTION_STRING"] = (
                f"InstrumentationKey={KEY};IngestionEndpoint=http://127.0.0.1:9"
            )
        server = start("telemetry.py", **environment)
        for _ in range(50):
            assert server.request("POST", "/score", "print").status == 200
        server.signal(signal.SIGTERM)
        assert server.wait_for_exit() == 0
        lost = [record.message for record in server.records() if record.logger == "azmlinfsrv.telemetry"]
        assert lost, "the log says that something was not sent"


def test_a_hanging_receiver_adds_at_most_two_seconds_to_the_end(start):
    # The times of the log, because the test process may be late.
    with Receiver(lambda received: None) as receiver:
        server = start("telemetry.py", **options(receiver))
        server.request("POST", "/score", "print")
        eventually(lambda: receiver.requests, "the receiver has something, and does not answer")
        server.signal(signal.SIGTERM)
        assert server.wait_for_exit() == 0
        [lost] = [record for record in server.records() if "not sent to" in record.message]
        assert re.match(
            r"(1 telemetry item was|\d+ telemetry items were) not sent to app_insights \(127\.0\.0\.1\)", lost.message
        )


@pytest.mark.any_worker_class
def test_206_sends_again_only_what_may_succeed(start):
    texts = []

    def answer(received):
        found = [data(item).get("message") for item in json.loads(received.body)]
        texts.extend(found)
        if texts.count("again") == 1 and "again" in found:
            errors = [{"index": found.index("again"), "statusCode": 503, "message": "busy"}]
            if "never" in found:
                errors.append({"index": found.index("never"), "statusCode": 400, "message": "bad"})
            body = {"itemsReceived": len(found), "itemsAccepted": len(found) - len(errors), "errors": errors}
            return 206, {}, json.dumps(body).encode()
        return 200, {}, b"{}"

    with Receiver(answer) as receiver:
        server = start("evaluate.py", **options(receiver, OTEL_BSP_SCHEDULE_DELAY="200"))
        server.request("POST", "/score", "[print(text) for text in ('never', 'again', 'once')]")
        eventually(lambda: texts.count("again") == 2, "the item is sent again")
        assert (texts.count("never"), texts.count("once")) == (1, 1)


def test_stored_items_survive_a_restart(start, tmp_path):
    storage = tmp_path / "storage"
    with Receiver(lambda received: (503, {}, b"")) as receiver:
        server = start("echo.py", "--telemetry_storage", str(storage), **options(receiver))
        server.request("POST", "/score", "kept", {"x-request-id": "kept"})
        receiver.wait_for("Request")
        server.signal(signal.SIGTERM)
        assert server.wait_for_exit() == 0
    folder = storage / "azmlinfsrv-telemetry"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    with Receiver() as receiver:
        server = start("echo.py", "--telemetry_storage", str(storage), **options(receiver))
        server.request("POST", "/score", "new")
        found = receiver.wait_for("Request", 2)
        assert "kept" in [data(item)["properties"]["Request Id"] for item in found]
        eventually(lambda: not list(folder.iterdir()), "nothing is stored any more")


@pytest.mark.any_worker_class
def test_children_and_threads_of_the_script_report(start, receiver):
    receiver.requests.clear()
    server = start("prints.py", **options(receiver))
    server.request("POST", "/score", "x")
    assert message(receiver, "in a thread")


def test_reports_of_workers_survive_a_front(start, receiver):
    receiver.requests.clear()
    server = start("evaluate.py", **options(receiver))
    os.kill(server.front(), signal.SIGKILL)
    server.wait_until_ready()
    server.request("POST", "/score", "print('after')")
    assert message(receiver, "after")
    assert receiver.wait_for("Request")
