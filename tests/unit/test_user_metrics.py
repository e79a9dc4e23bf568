"""``api.metrics`` outside the server, as a unit test of a script sees it: the same calls count in
this process, wrong ones are refused, and none takes long."""

from __future__ import annotations

import itertools
import time

import pytest

from azureml_inference_server_http.api import metrics

_numbers = itertools.count()


@pytest.fixture
def name():
    """A name that no other test has used, because a process keeps its metrics."""
    return f"made_for_a_test_{next(_numbers)}"


def test_a_counter_counts(name):
    counter = metrics.counter(name, "Help.", model="a")
    counter.inc()
    metrics.counter(name, model="a").inc(2.5)
    assert counter.value == 3.5
    assert metrics.counter(name, model="b").value == 0
    assert metrics.counter(name, model="a") is counter


def test_a_gauge_goes_up_and_down(name):
    gauge = metrics.gauge(name)
    gauge.set(5)
    gauge.inc()
    gauge.dec(3)
    assert gauge.value == 3


def test_a_histogram_has_count_and_sum(name):
    histogram = metrics.histogram(name, buckets=(1, 2))
    for value in (0.5, 1.5, 10):
        histogram.observe(value)
    assert (histogram.count, histogram.sum) == (3, 12)


@pytest.mark.parametrize(
    "make",
    [
        lambda name: metrics.counter(f"{name}-dashed"),
        lambda name: metrics.counter("1" + name),
        lambda name: metrics.counter(""),
        lambda name: metrics.gauge(""),
        lambda name: metrics.counter("azmlinfsrv_" + name),
        lambda name: metrics.gauge("process_" + name),
        lambda name: metrics.gauge(name, le="x"),
        lambda name: metrics.gauge(name, __label="x"),
        lambda name: metrics.gauge(name, label="a\0b"),
        lambda name: metrics.gauge(name, "h" * 400),
        lambda name: metrics.counter(name).inc(-1),
        lambda name: metrics.counter(name).inc(float("nan")),
        lambda name: metrics.gauge(name).inc(float("inf")),
        lambda name: metrics.histogram(name, buckets=()),
        lambda name: metrics.histogram(name, buckets=(2, 1)),
        lambda name: metrics.histogram(name, buckets=range(17)),
        lambda name: metrics.histogram(name).observe(float("nan")),
        lambda name: (metrics.counter(name), metrics.gauge(name)),
        lambda name: (metrics.gauge(name, a="x"), metrics.histogram(name, a="y")),
        lambda name: (metrics.histogram(name), metrics.gauge(f"{name}_sum")),
        lambda name: (metrics.gauge(f"{name}_count"), metrics.histogram(name)),
        lambda name: (metrics.histogram(f"{name}_bucket"), metrics.histogram(name)),
    ],
)
def test_what_prometheus_does_not_allow_is_refused(name, make):
    with pytest.raises(ValueError, match=r"."):
        make(name)


def test_a_counter_may_have_a_name_that_begins_as_a_histograms(name):
    metrics.histogram(name)
    metrics.counter(f"{name}_count").inc()
    metrics.gauge(f"{name}_summary").set(1)


@pytest.mark.parametrize(
    "make",
    [
        lambda name: metrics.counter(name, model=1),
        lambda name: metrics.counter(name, 1),
        lambda name: metrics.counter(7),
        lambda name: metrics.counter(name).inc("1"),
        lambda name: metrics.gauge(name).set(None),
    ],
)
def test_wrong_types_are_refused(name, make):
    with pytest.raises(TypeError):
        make(name)


def test_calls_take_microseconds_at_most(name):
    """A call takes less than a microsecond in a release build. The limit is ten times that, because the build
    may be one for development, and the machine busy; a call that asks the system for anything takes longer."""
    counter, gauge, histogram = metrics.counter(name), metrics.gauge(f"{name}_g"), metrics.histogram(f"{name}_h")

    def shortest(call):
        times = []
        for _ in range(200):
            began = time.thread_time()
            for _ in range(1000):
                call()
            times.append((time.thread_time() - began) / 1000)
        return min(times)

    for call in (counter.inc, lambda: gauge.set(1), lambda: histogram.observe(0.3), lambda: metrics.counter(name)):
        assert shortest(call) < 1e-5
