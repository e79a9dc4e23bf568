"""What arrives at a receiver of OpenTelemetry's own protocol, decoded by the official types, and spans of scripts."""

from __future__ import annotations

import ast
import signal

import pytest
from harness import eventually
from receiver import Receiver

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
logs_service = pytest.importorskip("opentelemetry.proto.collector.logs.v1.logs_service_pb2")

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=b"}


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as receiver:
        yield receiver


def options(receiver, **environment):
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-secret=the%20secret",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        **environment,
    }


def attributes(message):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in message.attributes}


def spans(receiver):
    """All spans that came, with the attributes of their resource."""
    found = []
    for received in list(receiver.requests):
        if received.path == "/v1/traces":
            for group in trace_service.ExportTraceServiceRequest.FromString(received.body).resource_spans:
                found += [(attributes(group.resource), span) for scope in group.scope_spans for span in scope.spans]
    return found


def log_records(receiver):
    found = []
    for received in list(receiver.requests):
        if received.path == "/v1/logs":
            for group in logs_service.ExportLogsServiceRequest.FromString(received.body).resource_logs:
                found += [record for scope in group.scope_logs for record in scope.log_records]
    return found


def server_span(receiver, count=1):
    found = eventually(
        lambda: [pair for pair in spans(receiver) if pair[1].kind == 2][count - 1 :], "the server's span"
    )
    return found[0]


@pytest.mark.any_worker_class
def test_a_request_is_a_span_with_its_parts(start, receiver):
    receiver.requests.clear()
    server = start("telemetry.py", **options(receiver))
    assert server.request("POST", "/score?key=hidden&a=1", "print", CALLER).status == 200
    resource, span = server_span(receiver)
    assert resource.pop("service.instance.id")
    assert resource == {"service.name": "ML service", "deployment.environment": "test"}
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("POST /score", TRACE, SPAN)
    assert span.trace_state == "a=b"
    found = attributes(span)
    assert found["http.request.method"] == "POST"
    assert found["http.route"] == found["url.path"] == "/score"
    assert found["url.query"] == "key=REDACTED&a=1"
    assert found["http.response.status_code"] == 200
    assert (found["server.address"], found["server.port"]) == ("127.0.0.1", server.port)
    assert found["client.address"] == "127.0.0.1"
    assert "error.type" not in found
    parts = {part.name: part for _, part in spans(receiver) if part.parent_span_id == span.span_id}
    assert set(parts) == {"queue", "convert", "run"}
    for part in parts.values():
        assert span.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano
        assert part.end_time_unix_nano <= span.end_time_unix_nano
    [received, *_] = [received for received in receiver.requests if received.path == "/v1/traces"]
    assert received.headers["content-type"] == "application/x-protobuf"
    assert received.headers["content-encoding"] == "gzip"
    assert received.headers["x-secret"] == "the secret"
    assert "the secret" not in server.output()


@pytest.mark.any_worker_class
def test_an_error_of_the_script_is_on_the_span_and_in_a_log_record(start, receiver):
    receiver.requests.clear()
    server = start("telemetry.py", **options(receiver))
    assert server.request("POST", "/score", "raise").status == 500
    _, span = server_span(receiver)
    assert span.status.code == 2
    assert attributes(span)["error.type"] == "ZeroDivisionError"
    assert {part.name for _, part in spans(receiver) if part.parent_span_id == span.span_id} == {
        "queue",
        "convert",
        "run",
    }

    def failure():
        return [record for record in log_records(receiver) if "exception.type" in attributes(record)]

    [record] = eventually(failure, "the log record")
    assert record.trace_id == span.trace_id
    assert record.span_id == span.span_id
    assert attributes(record)["exception.message"] == "ZeroDivisionError: division by zero"
    assert (record.severity_number, record.severity_text) == (17, "ERROR")


def test_all_loggers_are_sent(start, receiver):
    receiver.requests.clear()
    server = start("telemetry.py", **options(receiver))
    server.request("POST", "/score", "records")
    texts = eventually(
        lambda: (found := [record.body.string_value for record in log_records(receiver)]) and "5" in found and found,
        "the last record",
    )
    assert {"careful 1", "a child", "not that"} <= set(texts)
    assert len(texts) == len(set(texts)), "each record once"


def test_the_callers_decision_and_the_share_count(start, receiver):
    receiver.requests.clear()
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    server = start("echo.py", **options(receiver, **sampler))
    server.request("POST", "/score", "x")
    server.request("POST", "/score", "x", {"traceparent": f"00-{TRACE}-{SPAN}-00"})
    server.request("POST", "/score", "x", {"traceparent": f"00-{TRACE}-{SPAN}-01", "x-request-id": "sampled"})
    _, span = server_span(receiver)
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    assert {span.trace_id.hex() for _, span in spans(receiver)} == {TRACE}
    assert attributes(span)["azmlinfsrv.request_id"] == "sampled"


def test_a_value_that_cannot_be_used_is_one_line_and_the_script_is_served(start):
    server = start("echo.py", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4317", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert server.request("POST", "/score", "x").status == 200
    lines = {record.message for record in server.records() if "OTEL_" in record.message}
    said = "OTEL_EXPORTER_OTLP_PROTOCOL='grpc' is not used: it must be http/protobuf"
    assert lines == {f"{said}, so {signal} are not sent." for signal in ("traces", "logs", "metrics")}


def test_a_file_that_cannot_be_used_is_named_with_its_variables(start, tmp_path):
    missing = str(tmp_path / "ca.pem")
    server = start("echo.py", OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_CERTIFICATE=missing)
    [line] = [record.message for record in server.records() if missing in record.message]
    assert line.startswith("Telemetry is not sent to otlp_traces: cannot read ")
    assert "Correct OTEL_EXPORTER_OTLP_CERTIFICATE" in line


# ---- Spans of the script


@pytest.mark.any_worker_class
def test_spans_of_the_script_are_children_of_the_servers_span(start, receiver):
    pytest.importorskip("opentelemetry.sdk")
    receiver.requests.clear()
    server = start("own_spans.py", **options(receiver))
    trace, parent, is_recording = server.request("POST", "/score", "x", CALLER).json()
    _, span = server_span(receiver)
    assert (trace, parent, is_recording) == (TRACE, span.span_id.hex(), True)
    # A generator runs later than run(), part by part.
    parts = [ast.literal_eval(line) for line in server.request("POST", "/score", "stream", CALLER).text.splitlines()]
    _, span = server_span(receiver, 2)
    assert parts == [[TRACE, span.span_id.hex(), True]] * 2
    for thread in ("thread", "pool"):
        trace, parent, _ = server.request("POST", "/score", thread, CALLER).json()
        assert (trace, bool(parent)) == (TRACE, True), thread
    unsampled = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
    assert server.request("POST", "/score", "x", unsampled).json()[2] is False


@pytest.mark.any_worker_class
@pytest.mark.parametrize("when", ["at the top", "in run"])
def test_spans_of_the_script_are_children_of_the_callers_span_if_nothing_is_exported(start, when):
    pytest.importorskip("opentelemetry.sdk")
    server = start("own_spans.py", IMPORT_OPENTELEMETRY=when)
    # A script that imports it in run() is followed from its next request on.
    server.request("POST", "/score", "x", CALLER)
    assert server.request("POST", "/score", "x", CALLER).json() == [TRACE, SPAN, True]
    assert server.request("POST", "/score", "x").json()[1] == ""


HINT = "Add opentelemetry-sdk to the requirements of your script."


def test_a_script_that_misses_opentelemetry_is_told_what_to_install(start, tmp_path):
    script = tmp_path / "misses.py"
    script.write_text("import opentelemetry.missing\n")
    server = start(str(script), ready=False)
    assert server.wait_for_exit() == 3
    assert HINT in server.stdout()


def test_so_is_a_script_that_misses_it_in_run(start, tmp_path):
    script = tmp_path / "misses_later.py"
    script.write_text("def init():\n    pass\n\n\ndef run(data):\n    import opentelemetry.missing\n")
    server = start(str(script))
    assert server.score("x").status == 500
    eventually(lambda: HINT in server.stdout(), "the hint")
