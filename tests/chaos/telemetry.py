"""The receivers of a chaos run, and what must be true of the telemetry that they get.

Each server sends spans (OTLP) and items of Application Insights to a receiver of its own, which refuses, hangs, answers
nonsense and takes parts of what it gets, at random. At the end it accepts everything. Then each item was accepted, or
is counted as lost. Runs in the test process.
"""

from __future__ import annotations

import json
import random
import threading
import time

from harness import Server
from metrics_text import Scrape
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from receiver import OK, Answer, Received, Receiver

from .evidence import Violation

# Limit in seconds for everything to be sent when the receiver works again: a server tries again after a minute at most.
PATIENCE = 75.0
PROMISE = "telemetry is sent or counted as lost"


TRACES, APP_INSIGHTS = "otlp_traces", "app_insights"
_TRACK = "/v2.1/track"
_KEY = "00000000-0000-0000-0000-000000000001"


class RudeReceiver(Receiver):
    """Answers at random until ``is_good`` is set."""

    def __init__(self, seed: str) -> None:
        super().__init__(self._answer)
        self.is_good = False
        # The ids of the spans and of the request items that were accepted.
        self.accepted: dict[str, set[bytes | str]] = {TRACES: set(), APP_INSIGHTS: set()}
        # How many other items of Application Insights were accepted.
        self.others = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def environment(self) -> dict[str, str]:
        """The settings of the server that sends here."""
        return {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2000",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "AML_APP_INSIGHTS_ENABLED": "true",
            "AML_APP_INSIGHTS_KEY": _KEY,
            "AML_APP_INSIGHTS_ENDPOINT": self.url,
        }

    def _answer(self, received: Received) -> Answer | bytes | None:
        with self._lock:
            # What was sent is of no use any more, and would be the memory of the test.
            self.requests.clear()
            moods = ("good", "good", "part", "busy", "refuse", "odd", "hang")
            mood = "good" if self.is_good else self._random.choice(moods)
            taken = self._track(received, mood) if received.path == _TRACK else self._traces(received, mood)
        answers: dict[str, Answer | bytes | None] = {
            "good": taken,
            "part": taken,
            "busy": (503, {"Retry-After": "1"}, b""),
            "refuse": (400, {}, b"no"),
            "odd": b"\x16\x03\x01 this is not HTTP\r\n\r\n",
            "hang": None,
        }
        return answers[mood]

    def _traces(self, received: Received, mood: str) -> Answer:
        """Takes all spans, or all but two."""
        request = traces.ExportTraceServiceRequest.FromString(received.body)
        spans = [
            span.span_id for group in request.resource_spans for scope in group.scope_spans for span in scope.spans
        ]
        rejected = min(2, len(spans)) if mood == "part" else 0
        if mood in ("good", "part"):
            self.accepted[TRACES].update(spans[rejected:])
        if not rejected:
            return OK
        partial = traces.ExportTracePartialSuccess(rejected_spans=rejected, error_message="too old")
        return 200, {}, traces.ExportTraceServiceResponse(partial_success=partial).SerializeToString()

    def _track(self, received: Received, mood: str) -> Answer:
        """Takes all items, or (206) all but one that may come again and one that may not."""
        items = json.loads(received.body)
        errors = [{"index": 0, "statusCode": 500, "message": "again"}, {"index": 1, "statusCode": 400, "message": "no"}]
        errors = errors[: len(items)] if mood == "part" else []
        for item in items[len(errors) :] if mood in ("good", "part") else []:
            if item["name"].endswith(".Request"):
                self.accepted[APP_INSIGHTS].add(item["data"]["baseData"]["id"])
            else:
                self.others += 1
        told = {"itemsReceived": len(items), "itemsAccepted": len(items) - len(errors), "errors": errors}
        return 206 if errors else 200, {}, json.dumps(told).encode()


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
    taken = {name: len(ids) for name, ids in receiver.accepted.items()}
    return judge(server.folder.name, page, taken, receiver.others)


def judge(script: str, page: Scrape, accepted: dict[str, int], others: int = 0) -> list[Violation]:
    """Compare what the server has counted with what the receiver has accepted: spans, request items, and other items of
    Application Insights. An item may be accepted and counted as lost: the front died before it had the answer, or the
    answer was none. For the same reason other items, which have no id, may be accepted twice."""
    found = []
    # A client that left before there was a reply has spans and no item of Application Insights, and so has a method
    # that the route does not take.
    requests = {exporter: page.requests(route="/score") for exporter in accepted}
    if APP_INSIGHTS in requests:
        requests[APP_INSIGHTS] -= page.requests(route="/score", status="") + page.requests(route="/score", status="405")
    for exporter, ids in accepted.items():
        sent = page.sum("azmlinfsrv_telemetry_items_sent_total", exporter=exporter)
        lost = page.sum("azmlinfsrv_telemetry_items_dropped_total", exporter=exporter)
        most = ids + (others if exporter == APP_INSIGHTS else 0)
        if ids <= sent + lost and sent <= most and sent + lost >= requests[exporter]:
            continue
        detail = f"{exporter} of {script}: {most} items accepted, {ids} of them with an id, {sent} counted as sent, "
        detail += f"{lost} as lost, for {requests[exporter]} requests"
        found.append(Violation(PROMISE, None, detail))
    return found
