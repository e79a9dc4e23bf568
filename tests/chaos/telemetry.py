"""The receivers of a chaos run, and what must be true of the telemetry that they get.

Each server sends spans to a receiver of its own, which refuses, hangs, answers nonsense and takes parts of what it
gets, at random. At the end it accepts everything. Then each span was accepted, or is counted as lost. Runs in the test
process.
"""

from __future__ import annotations

import random
import threading
import time

from harness import Server
from metrics_text import Scrape
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from receiver import OK, Answer, Received, Receiver

from .invariants import Violation

# Limit in seconds for everything to be sent when the receiver works again: a server tries again after a minute at most.
PATIENCE = 75.0
PROMISE = "telemetry is sent or counted as lost"


class RudeReceiver(Receiver):
    """Answers at random until ``is_good`` is set."""

    def __init__(self, seed: str) -> None:
        super().__init__(self._answer)
        self.is_good = False
        # The ids of the spans that were accepted.
        self.accepted: set[bytes] = set()
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def environment(self) -> dict[str, str]:
        """The settings of the server that sends here."""
        return {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2000",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }

    def _answer(self, received: Received) -> Answer | bytes | None:
        request = traces.ExportTraceServiceRequest.FromString(received.body)
        spans = [
            span.span_id for group in request.resource_spans for scope in group.scope_spans for span in scope.spans
        ]
        with self._lock:
            # What was sent is of no use any more, and would be the memory of the test.
            self.requests.clear()
            mood = (
                "good"
                if self.is_good
                else self._random.choice(("good", "good", "part", "busy", "refuse", "odd", "hang"))
            )
            rejected = min(2, len(spans)) if mood == "part" else 0
            if mood in ("good", "part"):
                self.accepted.update(spans[rejected:])
        answers: dict[str, Answer | bytes | None] = {
            "good": OK,
            "busy": (503, {"Retry-After": "1"}, b""),
            "refuse": (400, {}, b"no"),
            "odd": b"\x16\x03\x01 this is not HTTP\r\n\r\n",
            "hang": None,
        }
        if mood == "part":
            partial = traces.ExportTracePartialSuccess(rejected_spans=rejected, error_message="too old")
            return 200, {}, traces.ExportTraceServiceResponse(partial_success=partial).SerializeToString()
        return answers[mood]


def settle(server: Server, receiver: RudeReceiver) -> list[Violation]:
    """Let the receiver accept everything, wait until nothing waits, and compare the numbers. Call it when no more
    requests come."""
    receiver.is_good = True
    deadline = time.monotonic() + PATIENCE
    while True:
        page = Scrape(server.get("/metrics").text)
        if page["azmlinfsrv_queue_depth"] == 0 and page.sum("azmlinfsrv_telemetry_items_waiting") == 0:
            break
        if time.monotonic() > deadline:
            waiting = page.sum("azmlinfsrv_telemetry_items_waiting")
            return [Violation(PROMISE, None, f"{server.folder.name} still has {waiting} items that wait")]
        time.sleep(0.5)
    return judge(server.folder.name, page, len(receiver.accepted))


def judge(script: str, page: Scrape, accepted: int) -> list[Violation]:
    """Compare what the server has counted with what the receiver has accepted. A span may be accepted and counted as
    lost: the front died before it had the answer."""
    sent = page.sum("azmlinfsrv_telemetry_items_sent_total")
    lost = page.sum("azmlinfsrv_telemetry_items_dropped_total")
    requests = page.requests(route="/score")
    detail = f"{script}: {accepted} spans accepted, {sent} counted as sent, {lost} as lost, for {requests} requests"
    if sent <= accepted <= sent + lost and sent + lost >= requests:
        return []
    return [Violation(PROMISE, None, detail)]
