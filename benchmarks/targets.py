"""The targets of this project, worked out from a run: measured figure, spread, met or not.

The limits are data; notes on those that are not met are in ``notes.toml``, under the target's key.
Pure.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

from .candidates import (
    CEILING,
    CEILING_ONE_THREAD,
    MOSEC_TENSORS,
    OURS,
    OURS_TELEMETRY,
    OURS_THREADS,
    OURS_WORKER_THREADS,
    REFERENCE,
)
from .results import Results, Spread
from .scenarios import INSTALL

AT_LEAST = "at least"
AT_MOST = "at most"
_HOLDS = {AT_LEAST: operator.ge, AT_MOST: operator.le}


@dataclass(frozen=True)
class Check:
    """One figure and its limit: a value of this server, or how it compares with that of
    ``reference``."""

    scenario: str
    value: str
    bound: str
    limit: float
    reference: str = ""
    candidate: str = OURS
    # For times: compare speeds (how many times as fast), not shares of the time.
    as_speed: bool = False
    # The name of the figure, if scenario and reference do not make it clear.
    label: str = ""
    form: str = ".2f"

    def figure(self, results: Results) -> Spread | None:
        """The measured value; None if it was not measured."""
        if self.reference:
            pair = (self.reference, self.candidate) if self.as_speed else (self.candidate, self.reference)
            return results.ratio(self.scenario, self.value, *pair)
        return results.spread(self.scenario, self.value, self.candidate)

    def is_met(self, figure: Spread) -> bool:
        """True if the median meets the limit."""
        return bool(_HOLDS[self.bound](figure.median, self.limit))


@dataclass(frozen=True)
class Target:
    """One row of the table: met if all its checks are."""

    key: str
    what: str
    checks: tuple[Check, ...]


def _against(scenario: str, value: str, bound: str, limit: float, reference: str, candidate: str = OURS) -> Check:
    return Check(scenario, value, bound, limit, reference, candidate)


def _as_fast(scenario: str, limit: float) -> Check:
    return Check(scenario, "p50_ms", AT_LEAST, limit, REFERENCE, as_speed=True)


TARGETS = (
    Target(
        "trivial",
        "`run()` that does nothing, 64 connections: requests/s",
        (
            _against("trivial", "c64.rps", AT_LEAST, 25, REFERENCE),
            _against("trivial", "c64.rps", AT_LEAST, 1.2, "granian-rsgi"),
            _against("trivial", "c64.rps", AT_LEAST, 0.5, CEILING),
        ),
    ),
    Target(
        "threads",
        "`run()` that does nothing, 64 connections, `--worker_class thread`: requests/s",
        (_against("trivial", "c64.rps", AT_LEAST, 0.7, CEILING, OURS_THREADS),),
    ),
    Target(
        "cpu-time",
        "processor time of a request, 64 connections, against the bare server on one thread",
        (
            _against("cpu-time", "total_us", AT_MOST, 2.0, CEILING_ONE_THREAD),
            Check(
                "cpu-time",
                "total_us",
                AT_MOST,
                1.7,
                CEILING_ONE_THREAD,
                OURS_THREADS,
                label="with `--worker_class thread`",
            ),
        ),
    ),
    Target(
        "telemetry",
        "all telemetry on, against nothing configured, 64 connections",
        (
            Check("telemetry", "rps", AT_LEAST, 0.85, OURS, OURS_TELEMETRY, label="requests/s"),
            Check("telemetry", "p99_ms", AT_MOST, 1.15, OURS, OURS_TELEMETRY, label="99th percentile"),
            Check("telemetry", "call_us", AT_MOST, 1.0, label="call of a metric in `run()`, µs"),
        ),
    ),
    Target(
        "latency",
        "`run()` that does nothing, 1 connection: median latency",
        (
            _against("trivial", "c1.p50_ms", AT_MOST, 0.35, REFERENCE),
            _against("trivial", "c1.p50_ms", AT_MOST, 1.6, CEILING),
        ),
    ),
    Target(
        "new-connections",
        "a new connection for each request: requests/s",
        (_against("new-connections", "rps", AT_LEAST, 6, REFERENCE),),
    ),
    Target(
        "busy",
        "`run()` of 5 ms of CPU time",
        (
            Check("busy", "gain", AT_LEAST, 1.9, label="throughput of 2 workers, times that of 1"),
            Check("busy", "added_ms", AT_MOST, 0.3, label="time added, ms"),
        ),
    ),
    Target(
        "mixed",
        "20 ms and 200 ms mixed, 2 workers: latency",
        (
            Check("mixed", "p50_ms", AT_MOST, 1, REFERENCE, label="median"),
            Check("mixed", "p99_ms", AT_MOST, 1, REFERENCE, label="99th percentile"),
            Check("mixed", "p50_of_ideal", AT_MOST, 1.1, label="median, times that of the ideal queue"),
            Check("mixed", "p99_of_ideal", AT_MOST, 1.1, label="99th percentile, times that of the ideal queue"),
        ),
    ),
    Target(
        "numbers",
        "10 MB of JSON numbers into a numpy script: speed",
        (_as_fast("numbers-10mb", 3),),
    ),
    Target(
        "binary",
        "10 MB of binary data: speed",
        (_as_fast("binary-10mb", 2),),
    ),
    Target(
        "tensors",
        "a tensor of 1 MB by the Open Inference Protocol, as bytes: speed",
        (Check("tensors-1mb", "p50_ms", AT_LEAST, 1.2, MOSEC_TENSORS, as_speed=True),),
    ),
    Target(
        "floats",
        "a million floats as the result: speed",
        (_as_fast("floats-out", 4),),
    ),
    Target(
        "start",
        "start to the first healthy answer",
        (_against("start", "seconds", AT_MOST, 0.25, REFERENCE),),
    ),
    Target(
        "memory",
        "idle memory (PSS), 1 worker",
        (_against("memory", "idle.pss_mib", AT_MOST, 0.5, REFERENCE),),
    ),
    Target(
        "worker-memory",
        "memory (PSS) of a further worker",
        (_against("memory", "worker.pss_mib", AT_MOST, 0.4, REFERENCE),),
    ),
    Target(
        "install",
        "installation: packages, and size",
        (
            Check(INSTALL, "packages", AT_MOST, 14, label="packages", form=".0f"),
            Check(INSTALL, "mib", AT_MOST, 0.25, REFERENCE, label="size"),
        ),
    ),
    Target(
        "scaling",
        "1 to 8 workers, 10 ms of sleep: share of linear",
        (
            Check(
                "scaling",
                "of_linear",
                AT_LEAST,
                0.95,
                label="throughput of 8 workers, times 8 times that of 1",
                form=".3f",
            ),
        ),
    ),
    Target(
        "worker-threads",
        "20 ms of sleep, `--worker_threads 16`, 64 connections: requests/s",
        (
            Check(
                "worker-threads",
                "rps",
                AT_LEAST,
                760,
                candidate=OURS_WORKER_THREADS,
                label="0.95 of what is possible",
                form=",.0f",
            ),
        ),
    ),
    Target(
        "async",
        "async `run()` that awaits 20 ms, 64 connections: requests/s",
        (
            Check("async", "rps", AT_LEAST, 2800, label="of 3,200 that are possible", form=",.0f"),
            _against("async", "rps", AT_LEAST, 1.1, "fastapi"),
        ),
    ),
)
