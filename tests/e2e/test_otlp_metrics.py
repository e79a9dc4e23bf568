"""Metrics that arrive by OTLP, decoded by the official types: the same numbers as those of ``GET /metrics``."""

from __future__ import annotations

import signal

import pytest
from harness import eventually
from metrics_text import Scrape
from receiver import Receiver

service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")

CUMULATIVE, DELTA = 2, 1


@pytest.fixture
def receiver():
    with Receiver() as receiver:
        yield receiver


def options(receiver, **environment):
    return {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{receiver.url}/some/path",
        "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "x-secret=hidden",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_METRIC_EXPORT_INTERVAL": "50",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        **environment,
    }


def attributes(message):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in message.attributes}


def sent(receiver):
    """What was sent, one dictionary for each time: metrics by their names."""
    found = []
    for received in list(receiver.requests):
        for group in service.ExportMetricsServiceRequest.FromString(received.body).resource_metrics:
            assert attributes(group.resource)["service.name"] == "ML service"
            assert attributes(group.resource)["service.instance.id"]
            for scope in group.scope_metrics:
                assert scope.scope.name == "azureml-inference-server-http"
                assert len({metric.name for metric in scope.metrics}) == len(scope.metrics)
                found.append({metric.name: metric for metric in scope.metrics})
    return found


def points(metric):
    return getattr(metric, metric.WhichOneof("data")).data_points


def scored(metrics):
    """The point of the requests to /score that were answered 200."""
    expected = {"http.route": "/score", "http.response.status_code": 200}
    metric = metrics.get("http.server.request.duration")
    return next((point for point in points(metric) if expected.items() <= attributes(point).items()), None)


def wait_for_scored(receiver, count):
    def find():
        return next((each for each in sent(receiver) if (point := scored(each)) and point.count == count), None)

    return eventually(find, f"{count} requests")


@pytest.mark.any_worker_class
def test_the_numbers_are_those_of_the_metrics_page(start, receiver):
    server = start("own_metrics.py", **options(receiver))
    for _ in range(3):
        assert server.score("small").status == 200
    metrics = wait_for_scored(receiver, 3)
    page = Scrape(server.get("/metrics").text)
    duration = metrics["http.server.request.duration"]
    assert (duration.unit, duration.histogram.aggregation_temporality) == ("s", CUMULATIVE)
    point = scored(metrics)
    assert attributes(point) == {
        "http.request.method": "POST",
        "http.route": "/score",
        "http.response.status_code": 200,
        "url.scheme": "http",
    }
    assert list(point.explicit_bounds) == [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
    assert sum(point.bucket_counts) == 3
    assert point.start_time_unix_nano < point.time_unix_nano
    labels = {"http_route": "/score", "http_response_status_code": "200"}
    assert point.sum == page.sum("http_server_request_duration_seconds_sum", **labels)
    [predictions] = points(metrics["predictions"])
    assert (attributes(predictions), predictions.as_double) == ({"model": "small"}, 3)
    assert metrics["predictions"].sum.is_monotonic
    assert [point.as_double for point in points(metrics["cache_entries"])] == [page["cache_entries"]]
    assert sum(point.count for point in points(metrics["input_length"])) == 3
    active = metrics["http.server.active_requests"].sum
    assert (active.is_monotonic, metrics["http.server.active_requests"].unit) == (False, "{request}")
    ok = [point.count for point in points(metrics["azmlinfsrv.run.duration"]) if attributes(point)["outcome"] == "ok"]
    assert ok == [3]
    received = receiver.requests[0]
    assert (received.path, received.headers["x-secret"]) == ("/some/path", "hidden")
    assert received.headers["content-encoding"] == "gzip"
    assert "hidden" not in server.output()


def test_numbers_go_on_when_the_front_dies(start, receiver):
    server = start("echo.py", "--metrics", "off", **options(receiver))
    assert server.get("/metrics").status == 404
    assert server.score("x").status == 200
    first = wait_for_scored(receiver, 1)
    server.kill_front()
    assert server.score("x").status == 200
    later = wait_for_scored(receiver, 2)
    assert scored(first).start_time_unix_nano == scored(later).start_time_unix_nano


@pytest.mark.any_worker_class
def test_the_end_of_the_server_sends_the_last_numbers(start, receiver):
    server = start("echo.py", **options(receiver, OTEL_METRIC_EXPORT_INTERVAL="1000000"))
    assert server.score("x").status == 200
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    [metrics] = sent(receiver)
    assert scored(metrics).count == 1


def test_with_delta_the_numbers_of_all_times_together_are_those_of_the_clients(start, receiver):
    temporality = {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"}
    server = start("echo.py", **options(receiver, **temporality))
    seen = 0
    for _ in range(3):
        assert server.score("x").status == 200
        times = len(receiver.requests)
        eventually(lambda times=times: len(receiver.requests) > times + 1, "metrics were sent again")
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    last = 0
    for metrics in sent(receiver):
        assert metrics["http.server.request.duration"].histogram.aggregation_temporality == DELTA
        point = scored(metrics)
        if point is not None:
            assert point.start_time_unix_nano >= last
            last = point.time_unix_nano
            seen += point.count
    assert seen == 3
