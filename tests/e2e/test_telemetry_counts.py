"""What ``GET /metrics`` tells about telemetry: each item that a receiver does not get is counted as waiting, stored or
dropped, also when the front dies (docs/metrics.md)."""

from __future__ import annotations

import signal

import pytest
from harness import eventually
from metrics_text import Scrape, assert_not_less
from receiver import OK, Receiver

# A request to /score is four spans: the server's, and those of its parts queue, convert and run.
SPANS = 4
KEY = "InstrumentationKey=00000000-0000-0000-0000-000000000001"


def scrape(server):
    return Scrape(server.get("/metrics").text)


def telemetry(found, exporter):
    """What the scrape says about an exporter, without zeros."""
    of_all = "azmlinfsrv_telemetry_"
    numbers = {
        "waiting": found.sum(f"{of_all}items_waiting", exporter=exporter),
        "sent": found.sum(f"{of_all}items_sent_total", exporter=exporter),
        "stored": found.sum(f"{of_all}items_stored_total", exporter=exporter),
        "failed": found.sum(f"{of_all}requests_failed_total", exporter=exporter),
    }
    for (name, labels), value in found.samples.items():
        if name == f"{of_all}items_dropped_total" and ("exporter", exporter) in labels:
            numbers[dict(labels)["reason"]] = value
    return {name: value for name, value in numbers.items() if value}


def wait_for(server, exporter, expected):
    """The scrape that says exactly this about an exporter."""

    def find():
        found = scrape(server)
        seen.append(telemetry(found, exporter))
        return found if seen[-1] == expected else None

    seen = []
    try:
        return eventually(find, f"{exporter} has {expected}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen[-1]}") from error


@pytest.mark.any_worker_class
def test_what_is_sent_and_what_is_refused_is_counted(start):
    with Receiver() as receiver:
        server = start("echo.py", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.url, OTEL_BSP_SCHEDULE_DELAY="20")
        assert telemetry(scrape(server), "otlp_traces") == {}
        server.score("x")
        before = wait_for(server, "otlp_traces", {"sent": SPANS})
        receiver.answer = lambda received: (400, {}, b"")
        server.score("x")
        after = wait_for(server, "otlp_traces", {"sent": SPANS, "refused": SPANS, "failed": 1})
        assert_not_less(before, after)
        # Exporters that are off have no series.
        assert telemetry(after, "app_insights") == telemetry(after, "otlp_logs") == {}
        assert 'exporter="app_insights"' not in after.text


def test_what_waited_in_a_front_that_died_is_counted_by_the_next_one(start):
    with Receiver(lambda received: None) as receiver:
        server = start(
            "echo.py",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.url,
            OTEL_EXPORTER_OTLP_TIMEOUT="1000000",
            OTEL_BSP_EXPORT_TIMEOUT="1000000",
            OTEL_BSP_SCHEDULE_DELAY="20",
        )
        for _ in range(3):
            assert server.score("x").status == 200
        # From now on the exporter waits for the receiver. What it has taken is spans, the rest counts as requests.
        eventually(lambda: receiver.requests, "the receiver has something and does not answer")
        before = eventually(
            lambda: found if (found := scrape(server)).requests(route="/score") == 3 else None, "all are counted"
        )
        [(name, waiting)] = telemetry(before, "otlp_traces").items()
        assert (name, waiting >= SPANS + 2) == ("waiting", True)
        server.kill_front()
        after = wait_for(server, "otlp_traces", {"front": waiting})
        assert_not_less(before, after)
        server.wait_for_record(f"{waiting:.0f} telemetry items waited in the front that has ended, and are lost.")
        receiver.answer = lambda received: OK
        assert server.score("x").status == 200
        wait_for(server, "otlp_traces", {"front": waiting, "sent": SPANS})


def test_what_has_not_been_taken_from_the_intake_is_counted_too(start):
    with Receiver() as receiver:
        # Items are gathered for much longer than the test takes.
        server = start("echo.py", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=receiver.url, OTEL_BSP_SCHEDULE_DELAY="1000000")
        for _ in range(3):
            assert server.score("x").status == 200
        wait_for(server, "otlp_traces", {"waiting": 3})
        server.kill_front()
        wait_for(server, "otlp_traces", {"front": 3})
        assert not receiver.requests


def test_stored_items_are_counted_when_they_are_stored_and_when_they_are_sent(start, tmp_path):
    storage = str(tmp_path / "storage")
    with Receiver(lambda received: (503, {}, b"")) as receiver:
        connection = f"{KEY};IngestionEndpoint={receiver.url}"
        server = start(
            "echo.py",
            "--appinsights_connection_string",
            connection,
            "--telemetry_storage",
            storage,
            OTEL_BSP_SCHEDULE_DELAY="20",
        )
        server.score("x")
        wait_for(server, "app_insights", {"stored": 1, "failed": 1})
        # The front dies: what is on the disk is not lost.
        server.kill_front()
        receiver.answer = lambda received: OK
        server.score("x")
        wait_for(server, "app_insights", {"stored": 1, "failed": 1, "sent": 2})
        server.signal(signal.SIGTERM)
        assert server.wait_for_exit() == 0
