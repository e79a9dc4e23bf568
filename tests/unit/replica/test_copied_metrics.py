"""The metrics of a replica's server become gauges of the engine."""

from __future__ import annotations

import logging
import threading
import urllib.request
from collections.abc import Sequence

import pytest

from azureml_inference_server_http.replica.metrics import Copier, Sample, samples, start_copying
from azureml_inference_server_http.testing import serve

TEXT = r"""
# HELP azmlinfsrv_queue_depth Requests that wait for a worker.
# TYPE azmlinfsrv_queue_depth gauge
azmlinfsrv_queue_depth 3
# HELP run_seconds Time inside run().
# TYPE run_seconds histogram
run_seconds_bucket{outcome="ok",le="0.5"} 2
run_seconds_bucket{outcome="ok",le="+Inf"} 4
run_seconds_sum{outcome="ok"} 1.5e-3
# TYPE mine_total counter
mine_total{route="a",text="one \"two\"\\ \nthree, {4}"} 5
"""


class Engine:
    """Stands in for Ray: what its gauges were set to, by name and labels."""

    def __init__(self) -> None:
        self.made: list[tuple[str, str, tuple[str, ...]]] = []
        self.values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def gauge(self, name: str, words: str, labels: Sequence[str]) -> EngineGauge:
        self.made.append((name, words, tuple(labels)))
        return EngineGauge(self, name, set(labels))


class EngineGauge:
    def __init__(self, engine: Engine, name: str, labels: set[str]) -> None:
        self.engine, self.name, self.labels = engine, name, labels

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == self.labels  # Ray refuses a missing label
        self.engine.values[self.name, frozenset(tags.items())] = value


def test_each_number_is_read_with_its_help_and_labels() -> None:
    assert list(samples(TEXT)) == [
        Sample("azmlinfsrv_queue_depth", "Requests that wait for a worker.", (), 3),
        Sample("run_seconds_bucket", "Time inside run().", (("outcome", "ok"), ("le", "0.5")), 2),
        Sample("run_seconds_bucket", "Time inside run().", (("outcome", "ok"), ("le", "+Inf")), 4),
        Sample("run_seconds_sum", "Time inside run().", (("outcome", "ok"),), 0.0015),
        # Ray has a label `route` of its own.
        Sample("mine_total", "", (("exported_route", "a"), ("text", 'one "two"\\ \nthree, {4}')), 5),
    ]


def test_a_gauge_is_made_once_and_a_series_that_disappears_becomes_zero() -> None:
    engine = Engine()
    copier = Copier(engine.gauge)
    copier.copy('memory{worker="0"} 7\nmemory{worker="1"} 8\n')
    copier.copy('memory{worker="0"} 9\n')
    assert engine.made == [("memory", "", ("worker",))]
    assert engine.values == {
        ("memory", frozenset({("worker", "0")})): 9,
        ("memory", frozenset({("worker", "1")})): 0,
    }


def test_a_line_ends_where_prometheus_ends_it() -> None:
    for separator in "\u2028\u0085\x0b\x1c":
        (found,) = samples(f'depth{{text="a{separator}b"}} 1\n')
        assert found == Sample("depth", "", (("text", f"a{separator}b"),), 1)


def test_a_metric_that_the_engine_refuses_is_named_once_and_the_others_are_copied(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    engine = Engine()

    def make(name: str, words: str, labels: Sequence[str]) -> EngineGauge:
        if name == "refused":
            raise ValueError("no such name")
        return engine.gauge(name, words, labels)

    copier = Copier(make)
    for number in range(3):
        copier.copy(f"refused 1\ndepth {number}\n")
    copier.copy("other 1\n")
    assert engine.values == {("depth", frozenset()): 0, ("other", frozenset()): 1}
    (record,) = caplog.records
    assert "does not take the metric refused" in record.getMessage()


def test_a_failure_does_not_end_the_copying(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    engine = Engine()
    answers = iter([OSError("one"), OSError("two"), "depth 1\n"])
    was_last = threading.Event()

    def read() -> str | None:
        answer = next(answers, None)
        if isinstance(answer, OSError):
            raise answer
        if answer is None:
            was_last.set()
        return answer

    done = start_copying(read, engine.gauge, interval=0.001)
    assert was_last.wait(30)
    done.set()
    assert engine.values == {("depth", frozenset()): 1}
    assert [record.getMessage() for record in caplog.records] == [
        "The metrics of the server cannot be copied at the moment."
    ]


def test_a_server_that_does_not_answer_is_asked_again() -> None:
    engine = Engine()
    answers = iter([None, "depth 1\n", "depth 2\n"])
    was_last = threading.Event()

    def read() -> str | None:
        text = next(answers, None)
        if text is None and engine.values:
            was_last.set()
        return text

    done = start_copying(read, engine.gauge, interval=0.001)
    assert was_last.wait(30)
    done.set()
    assert engine.values == {("depth", frozenset()): 2}


@pytest.mark.parametrize("name", ["azmlinfsrv_queue_depth", "azmlinfsrv_run_duration_seconds_bucket", "mine_total"])
def test_what_a_real_server_shows_is_read(name: str, shown: list[Sample]) -> None:
    assert name in {sample.name for sample in shown}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    script = tmp_path_factory.mktemp("metrics") / "score.py"
    script.write_text(
        "from azureml_inference_server_http.api import metrics\n"
        "def init(): ...\n"
        "def run(data):\n    metrics.counter('mine', 'Calls.', route='a').inc()\n    return {}\n"
    )
    with serve(script) as server:
        server.client.score(json={})
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as reply:
            text = reply.read().decode()
    found = list(samples(text))
    assert len(found) == sum(not line.startswith("#") for line in text.splitlines())
    return found
