"""Receivers that refuse, hang, answer nonsense or take a part: whatever they do, each item is sent or counted as lost,
and what waits does not grow without end (docs/metrics.md)."""

from __future__ import annotations

import json
import threading

import pytest
from harness import eventually
from metrics_text import Scrape
from receiver import OK, Receiver
from wire import clients

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

# A request to /score is four spans: the server's, and those of its parts queue, convert and run.
SPANS = 4
NONSENSE = b"\x16\x03\x01 this is not HTTP\r\n\r\n"


class Moods:
    """Answers with one of these after the other, and then always with success. ``accepted`` is how many items were
    taken, as ``taken`` says of a body and an answer."""

    def __init__(self, answers, taken):
        self._answers = list(answers)
        self._taken = taken
        self._lock = threading.Lock()
        self.accepted = 0

    def __call__(self, received):
        with self._lock:
            answer = self._answers.pop(0) if self._answers else OK
            self.accepted += self._taken(received.body, answer)
        return answer

    @property
    def are_over(self):
        return not self._answers


def telemetry(server, exporter):
    """What waits, what was sent, and what was dropped."""
    found = Scrape(server.get("/metrics").text)
    names = ("items_waiting", "items_sent_total", "items_dropped_total")
    return [found.sum(f"azmlinfsrv_telemetry_{name}", exporter=exporter) for name in names]


def call_until(server, is_over):
    """Send requests until ``is_over()``. Returns how many were answered."""
    answered = []

    def send(stop):
        while not stop.is_set():
            assert server.score("x").status == 200
            answered.append(1)
            stop.wait(0.02)

    with clients(send, 1):
        eventually(is_over, "the receiver has been through all its moods")
    return len(answered)


def spans_taken(body, answer):
    spans = [
        span
        for group in trace_service.ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]
    if not isinstance(answer, tuple) or answer[0] != 200:
        return 0
    rejected = trace_service.ExportTraceServiceResponse.FromString(answer[2]) if answer is not OK else None
    return len(spans) - (min(rejected.partial_success.rejected_spans, len(spans)) if rejected else 0)


@pytest.mark.any_worker_class
def test_each_span_is_sent_or_counted_as_lost(start):
    partly = trace_service.ExportTraceServiceResponse()
    partly.partial_success.rejected_spans = 2
    partly.partial_success.error_message = "too old"
    moods = Moods([NONSENSE, (400, {}, b""), None, (200, {}, partly.SerializeToString()), (503, {}, b"")], spans_taken)
    with Receiver(moods) as receiver:
        server = start(
            "echo.py",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_TIMEOUT="300",
            OTEL_BSP_SCHEDULE_DELAY="20",
        )
        answered = call_until(server, lambda: moods.are_over)
        waiting, sent, dropped = eventually(
            lambda: (found := telemetry(server, "otlp_traces"))[0] == 0 and sum(found) == SPANS * answered and found,
            "nothing waits any more",
        )
        assert (waiting, sent) == (0, moods.accepted)
        assert dropped > 2


def test_each_item_of_application_insights_is_sent_or_counted_as_lost(start):
    def partly(*errors):
        return (206, {}, json.dumps({"errors": [{"index": n, "statusCode": code} for n, code in errors]}).encode())

    def taken(body, answer):
        if not isinstance(answer, tuple) or answer[0] not in (200, 206) or answer[2] == b"nonsense":
            return 0
        items = json.loads(body)
        return len(items) - len(
            [each for each in json.loads(answer[2]).get("errors", []) if each["index"] < len(items)]
        )

    moods = Moods([NONSENSE, (206, {}, b"nonsense"), partly((0, 503)), partly((0, 400)), (402, {}, b"")], taken)
    with Receiver(moods) as receiver:
        connection = f"InstrumentationKey=00000000-0000-0000-0000-000000000001;IngestionEndpoint={receiver.url}"
        server = start("echo.py", "--appinsights_connection_string", connection, OTEL_BSP_SCHEDULE_DELAY="20")
        answered = call_until(server, lambda: moods.are_over)
        _, sent, dropped = eventually(
            lambda: (found := telemetry(server, "app_insights"))[0] == 0 and sum(found) == answered and found,
            "nothing waits any more",
        )
        assert sent == moods.accepted
        assert dropped > 0


def test_what_waits_is_bounded(start):
    with Receiver(lambda received: None) as receiver:
        server = start(
            "echo.py",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_TIMEOUT="200",
            OTEL_BSP_SCHEDULE_DELAY="10",
            OTEL_BSP_MAX_QUEUE_SIZE="20",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8",
        )
        for _ in range(30):
            assert server.score("x").status == 200
        waiting, sent, dropped = eventually(
            lambda: (found := telemetry(server, "otlp_traces"))[0] <= 20 and sum(found) == SPANS * 30 and found,
            "20 spans wait",
        )
        assert (waiting, sent, dropped) == (20, 0, SPANS * 30 - 20)
        receiver.answer = lambda received: OK
        eventually(lambda: telemetry(server, "otlp_traces") == [0, 20, SPANS * 30 - 20], "the rest is sent")
        sizes = {
            len(trace_service.ExportTraceServiceRequest.FromString(each.body).resource_spans[0].scope_spans[0].spans)
            for each in receiver.requests
        }
        assert max(sizes) == 8


def test_a_redirect_that_is_not_followed_is_told_once_in_a_while(start):
    with Receiver(lambda received: (307, {"Location": "/elsewhere"}, b"")) as receiver:
        server = start("echo.py", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.url, OTEL_BSP_SCHEDULE_DELAY="20")
        for count in (1, 2):
            assert server.score("x").status == 200
            eventually(
                lambda lost=SPANS * count: telemetry(server, "otlp_traces") == [0, 0, lost], "the spans are lost"
            )
        [line] = [record for record in server.records() if "redirects" in record.message]
        assert "redirects to an address without a host, which is not followed, so " in line.message
        assert line.message.endswith(" telemetry items are lost.")
