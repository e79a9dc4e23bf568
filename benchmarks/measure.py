"""How each kind of scenario is measured: what is started, which load it gets, and which figures
come out.

Each function takes a ``Bench``, which starts the one candidate that is measured now, and returns
that candidate's values. Runs in the benchmark process; which scenario uses which function stands in
``scenarios.py``.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from . import load
from .candidates import OURS_TELEMETRY, Candidate
from .environments import Installed
from .load import LoadFailed, Request
from .queueing import FAST_MS, Arrival, percentile, poisson_arrivals, single_queue
from .server import Server, Work, serve
from .sink import sink

Values = dict[str, float]
CONNECTIONS = (1, 16, 64, 256)
MANY = 64
SOME = 16
QUEUE_WORKERS = 2
# The mixed scenario needs this many times the usual seconds: its 99th percentile is made of few
# requests.
QUEUE_SECONDS = 6
WORKERS = (1, 2, 4, 8)
STARTS = 3
MEMORY_WORKERS = 4
# Prints the microseconds of a call that looks its metric up by name and label, as docs/metrics.md shows it.
METRIC_CALL = """
import timeit
from azureml_inference_server_http.api import metrics
call = lambda: metrics.counter("predictions", "Predictions made.", model="large").inc()
empty = lambda: None
count = 200_000
best = min(timeit.repeat(call, number=count, repeat=5)) - min(timeit.repeat(empty, number=count, repeat=5))
print(best / count * 1e6)
"""


@dataclass(frozen=True)
class Bench:
    """One candidate in one scenario in one round."""

    candidate: Candidate
    installed: Installed
    work: Work
    request: Request
    # Tells if the body of an answer is correct.
    is_right: Callable[[bytes], bool]
    seconds: float
    round: int

    @contextlib.contextmanager
    def serve(self, workers: int = 1) -> Iterator[Server]:
        """Start the candidate, wait until it is healthy, and check one answer."""
        with serve(self.candidate, self.installed, replace(self.work, workers=workers)) as server:
            body = load.first_answer(server.port, self.request)
            if not self.is_right(body):
                raise LoadFailed(f"wrong answer: {body[:200]!r}")
            yield server

    def press(self, server: Server, connections: int, keep_alive: bool = True, tell: str | None = None) -> load.Load:
        """Load by wrk, after a short one that does not count. ``tell`` is a number in the
        answers."""
        load.wrk(server.port, self.request, connections, min(1.0, self.seconds), keep_alive)
        # Waits for the rest of the first load, because some servers still work for clients that
        # have gone.
        load.first_answer(server.port, self.request)
        return load.wrk(server.port, self.request, connections, self.seconds, keep_alive, tell)


def connections(bench: Bench) -> Values:
    """Requests per second and latency with more and more kept-alive connections."""
    values: Values = {}
    with bench.serve() as server:
        for count in CONNECTIONS:
            seen = bench.press(server, count)
            values |= {f"c{count}.rps": seen.rps, f"c{count}.p50_ms": seen.p50_ms, f"c{count}.p99_ms": seen.p99_ms}
            values |= {f"c{count}.broken": seen.broken} if seen.broken else {}
    return values


def cpu_time(bench: Bench) -> Values:
    """Microseconds of processor time per request, over all processes of the server, at 64
    kept-alive connections."""
    with bench.serve() as server:
        # The first load does not count: connections are made, and code runs for the first time.
        load.wrk(server.port, bench.request, MANY, min(1.0, bench.seconds))
        load.first_answer(server.port, bench.request)
        before = server.cpu_time()
        seen = load.wrk(server.port, bench.request, MANY, bench.seconds)
        after = server.cpu_time()
    user, system = ((late - early) / seen.requests * 1e6 for early, late in zip(before, after))
    return {"user_us": user, "system_us": system, "total_us": user + system}


def telemetry(bench: Bench) -> Values:
    """Requests per second and latency while telemetry is sent, if the candidate sends any; and what a call of a metric
    of the script costs."""
    with sink() as url:
        receivers = {"AML_APP_INSIGHTS_ENDPOINT": url, "OTEL_EXPORTER_OTLP_ENDPOINT": url}
        sends = bench.candidate.key == OURS_TELEMETRY
        bench = replace(bench, work=replace(bench.work, environment=receivers if sends else {}))
        with bench.serve() as server:
            seen = bench.press(server, MANY)
    values = {"rps": seen.rps, "p50_ms": seen.p50_ms, "p99_ms": seen.p99_ms}
    if not sends:
        python = str(bench.installed.bin / "python")
        told = subprocess.run([python, "-c", METRIC_CALL], capture_output=True, text=True, check=True)
        values["call_us"] = float(told.stdout)
    return values


def many(bench: Bench) -> Values:
    """Requests per second and latency of 64 connections with one worker."""
    with bench.serve() as server:
        seen = bench.press(server, MANY)
    return {"rps": seen.rps, "p50_ms": seen.p50_ms, "p99_ms": seen.p99_ms}


def new_connections(bench: Bench) -> Values:
    """Requests per second when each comes on a connection of its own."""
    with bench.serve() as server:
        return {"rps": bench.press(server, SOME, keep_alive=False).rps}


def one_and_some(bench: Bench) -> Values:
    """Latency of a single connection, and requests per second of sixteen."""
    with bench.serve() as server:
        alone, together = bench.press(server, 1), bench.press(server, SOME)
    return {"c1.p50_ms": alone.p50_ms, "c16.rps": together.rps, "c16.p99_ms": together.p99_ms}


def busy(bench: Bench) -> Values:
    """The time that the server adds to ``run()`` for one client, and the gain of a second worker
    for many clients."""
    with bench.serve() as server:
        alone = bench.press(server, 1, tell="run_ms")
        values = {"added_ms": alone.p50_ms - alone.told}
        if bench.candidate.is_bare:
            return values
        one = bench.press(server, SOME).rps
    with bench.serve(workers=2) as server:
        two = bench.press(server, SOME).rps
    return {**values, "w1.rps": one, "w2.rps": two, "gain": two / one}


def mixed(bench: Bench) -> Values:
    """Fast and slow requests at random times, compared with an ideal queue for the same
    requests."""
    arrivals = poisson_arrivals(bench.round, QUEUE_SECONDS * bench.seconds, QUEUE_WORKERS)
    with bench.serve(workers=QUEUE_WORKERS) as server:
        # Each worker's first request is slower than all that follow.
        load.open_loop(server.port, [Arrival(0.0, FAST_MS)] * 2 * QUEUE_WORKERS)
        served = load.open_loop(server.port, arrivals)
    times = [request.seconds for request in served]
    ideal = single_queue([request.arrival for request in served], QUEUE_WORKERS)
    values: Values = {}
    for name, share in (("p50", 50), ("p99", 99)):
        measured, possible = percentile(times, share), percentile(ideal, share)
        values |= {f"{name}_ms": measured * 1000, f"{name}_of_ideal": measured / possible}
    return values


def large(bench: Bench) -> Values:
    """Milliseconds for a request with much to read or to write, one at a time."""
    with bench.serve() as server:
        calls = load.closed_loop(server.port, bench.request, bench.seconds)
    times = [seconds * 1000 for seconds, _ in calls]
    return {"p50_ms": statistics.median(times), "max_ms": max(times)}


def start(bench: Bench) -> Values:
    """The time from the command to its first healthy answer."""
    seconds = []
    for _ in range(STARTS):
        with bench.serve() as server:
            seconds.append(server.start_seconds)
    return {"seconds": statistics.median(seconds)}


def memory(bench: Bench) -> Values:
    """The memory of all processes together: after one request, after load, and for each further
    worker."""
    with bench.serve() as server:
        idle = server.memory()
        bench.press(server, MANY)
        loaded = server.memory()
    values = {f"idle.{name}": value for name, value in idle.items()}
    values |= {f"loaded.{name}": value for name, value in loaded.items()}
    if not bench.candidate.is_bare:
        with bench.serve(workers=MEMORY_WORKERS) as server:
            several = server.memory()
        values["worker.pss_mib"] = (several["pss_mib"] - idle["pss_mib"]) / (MEMORY_WORKERS - 1)
    return values


def scaling(bench: Bench) -> Values:
    """Requests per second with more and more workers, when workers wait rather than compute."""
    values: Values = {}
    for count in WORKERS:
        with bench.serve(workers=count) as server:
            values[f"w{count}.rps"] = bench.press(server, MANY).rps
    most = WORKERS[-1]
    values["of_linear"] = values[f"w{most}.rps"] / (most * values["w1.rps"])
    return values
