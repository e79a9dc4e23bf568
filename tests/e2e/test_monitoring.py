"""Instrumentation of Flask sees each call of run() as it is answered, and may change the answer.

Each tool is used as its documentation says. Nothing here needs a network: what the tools would send
goes to a file, to standard output or to a receiver of this module.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Server, Start, eventually

FAILED = "An unexpected error occurred in scoring script. Check the logs for more info."


# Flask's own means


@pytest.mark.any_worker_class
def test_hooks_of_flask_see_each_reply_and_change_it(start: Start) -> None:
    server = start("flask_hooks.py")
    server.score("the hooks are installed")
    server.score("seen")
    reply = server.score("x", x_request_id="r")
    assert (reply.status, reply.body) == (203, b'"X"')
    assert [reply[name] for name in ("x-after-request", "x-middleware", "content-length")] == ["1", "1", "3"]
    assert [reply[name] for name in ("x-request-id", "x-ms-run-function-failed")] == ["r", "False"]
    seen = json.loads(server.score("seen").body.lower())
    shown = {
        "content-length": "3",
        "x-ms-run-function-failed": "false",
        "x-ms-server-version": reply["x-ms-server-version"],
        "x-request-id": "r",
    }
    assert seen[seen.index(["closed"]) + 1 :][:8] == [
        ["request_started", None, "none"],
        ["before_request"],
        ["after_request", 200, '"x"'],
        ["request_finished", 200, "none"],
        ["middleware", "200 ok", shown],
        ["teardown_request", "none"],
        ["request_tearing_down", None, "none"],
        ["closed"],
    ]


@pytest.mark.any_worker_class
def test_hooks_of_flask_see_the_exceptions_of_run(start: Start) -> None:
    server = start("flask_hooks.py")
    server.score("the hooks are installed")
    server.score("seen")
    failed = server.score("boom", x_request_id="r")
    assert failed.status == 500
    assert json.loads(failed.body.lower()) == {"message": FAILED.lower()}
    assert failed["x-middleware"] == "1"
    assert failed["x-ms-run-function-failed"] == "True"
    assert failed["x-ms-run-error-location"].startswith("flask_hooks.py:")
    seen = json.loads(server.score("seen").body.lower())
    error = "valueerror('boom')"
    assert [each[:2] if each[0] == "middleware" else each for each in seen[seen.index(["closed"]) + 1 :][:9]] == [
        ["request_started", None, "none"],
        ["before_request"],
        ["got_request_exception", None, error],
        ["after_request", 500, json.dumps({"message": FAILED}).lower()],
        ["request_finished", 500, "none"],
        ["middleware", "500 internal server error"],
        ["teardown_request", error],
        ["request_tearing_down", None, error],
        ["closed"],
    ]
    [record] = server.records(level="E")
    assert record.text.startswith("Encountered Exception: Traceback (most recent call last):\n  File ")
    assert "flask_hooks.py" in record.text.splitlines()[1]


@pytest.mark.any_worker_class
def test_refused_input_is_seen_too(start: Start) -> None:
    server = start("flask_hooks.py")
    server.score("the hooks are installed")
    reply = server.score(b"\xff")
    assert (reply.status, reply["x-middleware"], reply["x-ms-run-function-failed"]) == (400, "1", "False")
    assert json.loads(reply.body.lower())["message"].startswith("input cannot be decoded as utf-8")


# Raw scripts


@pytest.mark.any_worker_class
def test_head_of_a_stream_does_not_run_it(start: Start) -> None:
    server = start("raw_answers.py")
    assert server.request("HEAD", "/score?w=stream").status == 200
    assert json.loads(server.get("/score?w=events").body) == ["closed"]


@pytest.mark.any_worker_class
@pytest.mark.parametrize("kind", ["whole", "stream"])
def test_failing_call_on_close_changes_no_reply(start: Start, kind: str) -> None:
    server = start("raw_answers.py")
    reply = server.get(f"/score?w={kind}")
    assert (reply.status, reply.body) == (200, b"ab")
    record = server.wait_for_record("A function that is called when the response is closed failed.", level="E")
    assert "RuntimeError: of call_on_close" in record.text


@pytest.mark.any_worker_class
def test_absolute_target_and_aml_request_of_a_request(start: Start) -> None:
    server = start("raw_answers.py")
    with server.connect() as connection:
        target = "http://other.example/score?w=uri"
        raw_uri, wrapped, body = json.loads(connection.exchange("POST", target, b"x").body)
    assert (raw_uri, body) == (target, "x")
    assert re.fullmatch(r"<AMLRequest 'http://\S+/score\?w=uri' \[POST\]>", wrapped)


# Tools


def spans(server: Server) -> list[dict[str, Any]]:
    """Read the JSON objects that OpenTelemetry's console exporter has written, each from a line "{"
    to a line "}"."""
    return [json.loads(text) for text in re.findall(r"^\{\n.*?^\}$", server.stdout(), re.DOTALL | re.MULTILINE)]


@pytest.mark.any_worker_class
def test_opentelemetry_instrument(start: Start) -> None:
    command = shutil.which("opentelemetry-instrument", path=str(Path(sys.executable).parent))
    assert command, "opentelemetry-distro of tests/requirements.txt is not installed"
    server = start(
        "evaluate.py",
        through=(command,),
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        OTEL_BSP_SCHEDULE_DELAY="100",
        OTEL_SEMCONV_STABILITY_OPT_IN="http",
        OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE="x-request-id",
    )
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert server.score("[1]", traceparent=f"00-{trace}-00f067aa0ba902b7-01", x_request_id="r").body == b"[1]"
    assert server.score("1 / 0").status == 500
    assert server.get("/nowhere").status == 404  # answered by the front, so not seen
    good, bad = eventually(lambda: spans(server) if len(spans(server)) > 1 else None, "there are two spans")
    assert [span["name"] for span in (good, bad)] == ["POST /score"] * 2
    assert [span["attributes"]["http.response.status_code"] for span in (good, bad)] == [200, 500]
    assert [span["status"]["status_code"] for span in (good, bad)] == ["UNSET", "ERROR"]
    assert good["context"]["trace_id"] == f"0x{trace}"
    assert good["attributes"]["http.response.header.x_request_id"] == ["r"]
    assert good["events"] == []
    assert [event["attributes"]["exception.type"] for event in bad["events"]] == ["ZeroDivisionError"]


def lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.any_worker_class
def test_sentry(start: Start) -> None:
    server = start("watched_by_sentry.py")
    assert server.score("x").body == b'"x"'
    assert server.score("boom").status == 500
    sent = server.folder / "sent"

    def transactions() -> list[Any]:
        return [item for item in lines(sent) if item.get("type") == "transaction"]

    both = eventually(lambda: transactions() if len(transactions()) > 1 else None, "there are two transactions")
    assert [item["contexts"]["response"]["status_code"] for item in both] == [200, 500]
    assert {item["request"]["url"] for item in both} == {f"http://127.0.0.1:{server.port}/score"}
    assert {item["transaction"] for item in both} == {"main.handle_score"}
    raised = [item["exception"]["values"] for item in lines(sent) if "exception" in item]
    assert [[(each["type"], each["value"]) for each in values] for values in raised] == [[("ValueError", "boom")]]


class Receiver(http.server.ThreadingHTTPServer):
    """Receives the data of Azure Monitor's exporter. ``requests``: status and success of each
    request item."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiving)
        self.requests: list[tuple[str, bool]] = []
        self.exceptions: list[str] = []

    def take(self, items: list[Any]) -> None:
        for item in (item["data"] for item in items):
            if item["baseType"] == "RequestData":
                self.requests.append((item["baseData"]["responseCode"], item["baseData"]["success"]))
            elif item["baseType"] == "ExceptionData":
                self.exceptions += [each["typeName"] for each in item["baseData"]["exceptions"]]


class Receiving(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        items = json.loads(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.server.take(items)
        answer = json.dumps({"itemsReceived": len(items), "itemsAccepted": len(items), "errors": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def azure_monitor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with azure-monitor-opentelemetry, which is too large for tests/requirements.txt."""
    folder = tmp_path_factory.mktemp("packages")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--target",
        str(folder),
        "azure-monitor-opentelemetry",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    if done.returncode:
        pytest.skip(f"azure-monitor-opentelemetry cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.mark.any_worker_class
@pytest.mark.timeout(300)
def test_azure_monitor(start: Start, azure_monitor: Path) -> None:
    with receiver() as received:
        server = start(
            "watched_by_azure_monitor.py",
            PYTHONPATH=str(azure_monitor),
            CONNECTION=f"InstrumentationKey={'0' * 8}-0000-4000-8000-{'0' * 12};"
            f"IngestionEndpoint=http://127.0.0.1:{received.server_port}/",
            APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL="true",
            OTEL_BSP_SCHEDULE_DELAY="100",
            OTEL_EXPERIMENTAL_RESOURCE_DETECTORS="otel",  # those of Azure ask addresses that only Azure has
        )
        assert server.score("x").body == b'"x"'
        assert server.score("boom").status == 500
        eventually(lambda: len(received.requests) > 1, "both requests were sent")
    assert received.requests == [("200", True), ("500", False)]
    assert "ValueError" in received.exceptions
