"""What is measured: which script, which request, whose answers, and how its table on the page
looks. Data only.

``measure.py`` has the functions named here, ``payloads.py`` makes the bodies, ``candidates.py``
lists the servers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from . import measure, payloads
from .candidates import (
    CEILING,
    CEILING_ONE_THREAD,
    MOSEC_TENSORS,
    OURS,
    OURS_TELEMETRY,
    OURS_THREADS,
    OURS_WORKER_THREADS,
    PLAIN,
    QUEUEING,
    REFERENCE,
    WHOLE,
)
from .measure import Bench, Values
from .payloads import Payload

BINARY = "application/octet-stream"


class Column(NamedTuple):
    """One value in the table of a scenario. ``form`` is the format of a figure."""

    value: str
    title: str
    form: str = ",.0f"


@dataclass(frozen=True)
class Scenario:
    """One scenario: what is measured, and how the page shows it."""

    key: str
    title: str
    # The explanation for readers, in one or two sentences.
    text: str
    # A file of benchmarks/scripts, or an example's script if there is a slash in it.
    script: str
    payload: Payload
    measure: Callable[[Bench], Values]
    candidates: tuple[str, ...]
    columns: tuple[Column, ...]
    content_type: str = "application/json"
    call: str = "text"
    # Variables of this server.
    environment: tuple[tuple[str, str], ...] = ()


_NUMBERS = (OURS, OURS_THREADS, REFERENCE, "published-granian", "granian-rsgi", CEILING)
_MANY = (
    Column("rps", "requests/s"),
    Column("p50_ms", "median ms", ".2f"),
    Column("p99_ms", "99th pct. ms", ".2f"),
)
_V2 = (("AZMLINFSRV_PROTOCOLS", "score,v2"),)
_LARGE = (Column("p50_ms", "median, ms", ",.1f"), Column("max_ms", "longest, ms", ",.1f"))

_TABLE = (
    Scenario(
        "trivial",
        "A `run()` that does nothing",
        "Kept-alive connections, each sending its next request when it has its answer. One worker. Targets compare "
        "with the bare server as it starts by default, with a thread for each core; with one thread it leaves a core "
        "to the load generator, which is faster here.",
        "trivial.py",
        payloads.SMALL,
        measure.connections,
        (*PLAIN, CEILING, CEILING_ONE_THREAD),
        (
            *(Column(f"c{count}.rps", f"requests/s, {count} conn.") for count in measure.CONNECTIONS),
            Column("c1.p50_ms", "median ms, 1 conn.", ".3f"),
            Column("c64.p50_ms", "median ms, 64 conn.", ".2f"),
            Column("c64.p99_ms", "99th pct. ms, 64 conn.", ".2f"),
        ),
    ),
    Scenario(
        "cpu-time",
        "Processor time of a request",
        "User and system time of all processes of the server, divided by the requests that they answered, at "
        f"{measure.MANY} connections with a `run()` that does nothing. On a machine with other work, it varies less "
        "than requests per second do. The bare server has one thread.",
        "trivial.py",
        payloads.SMALL,
        measure.cpu_time,
        (OURS, OURS_THREADS, REFERENCE, "published-granian", "granian-rsgi", CEILING_ONE_THREAD),
        (
            Column("user_us", "user, µs", ".1f"),
            Column("system_us", "system, µs", ".1f"),
            Column("total_us", "both, µs", ".1f"),
        ),
    ),
    Scenario(
        "telemetry",
        "All telemetry",
        f"The same with nothing configured and with everything that is sent, at {measure.MANY} connections. A call of "
        "a metric is `metrics.counter(name, help, label=value).inc()` in `run()`.",
        "trivial.py",
        payloads.SMALL,
        measure.telemetry,
        (OURS, OURS_TELEMETRY),
        (
            Column("rps", "requests/s"),
            Column("p50_ms", "median ms", ".2f"),
            Column("p99_ms", "99th pct. ms", ".2f"),
            Column("call_us", "call of a metric, µs", ".2f"),
        ),
    ),
    Scenario(
        "new-connections",
        "The same, each request on a new connection",
        f"{measure.SOME} clients that connect, ask, and close. One worker.",
        "trivial.py",
        payloads.SMALL,
        measure.new_connections,
        (*PLAIN, CEILING),
        (Column("rps", "requests/s"),),
    ),
    Scenario(
        "busy",
        "A model of 5 ms of CPU time",
        "Added: what one client waits beyond `run()` itself; the median of its times less that of `run()`, which "
        "answers how long it took. The bare server works for 5 ms by itself: what it adds is the time that the machine "
        f"needs to wake up a client and a server. Requests per second are those of {measure.SOME} connections; the "
        "second worker competes with the load generator for the cores.",
        "busy.py",
        payloads.BUSY,
        measure.busy,
        (*PLAIN, CEILING),
        (
            Column("added_ms", "added, ms", ".2f"),
            Column("w1.rps", "requests/s, 1 worker", ",.1f"),
            Column("w2.rps", "2 workers", ",.1f"),
            Column("gain", "gain", ".2f"),
        ),
    ),
    Scenario(
        "mixed",
        "A model of 20 ms, 200 ms for every tenth request",
        "`run()` sleeps. Two workers; requests come at random moments, as those of independent clients, and take 70 % "
        "of the workers' time. The ideal is computed: a single queue in front of both workers, for the same requests "
        "at the moments when they were sent and with the durations that their `run()` had, without any overhead.",
        "sleeping.py",
        payloads.SLEEP_10,
        measure.mixed,
        QUEUEING,
        (
            Column("p50_ms", "median, ms", ",.1f"),
            Column("p50_of_ideal", "median / ideal", ".2f"),
            Column("p99_ms", "99th pct., ms", ",.1f"),
            Column("p99_of_ideal", "99th / ideal", ".2f"),
        ),
    ),
    Scenario(
        "numbers-1mb",
        "1 MB of numbers in JSON, into a numpy array",
        "The script takes a numpy array by `@input_schema` and returns its sum. One client.",
        "array_in.py",
        payloads.NUMBERS_1MB,
        measure.large,
        _NUMBERS,
        _LARGE,
        call="parameters",
    ),
    Scenario(
        "numbers-10mb",
        "10 MB of the same",
        "The bare server reads the body and does not look at it.",
        "array_in.py",
        payloads.NUMBERS_10MB,
        measure.large,
        _NUMBERS,
        _LARGE,
        call="parameters",
    ),
    Scenario(
        "binary-10mb",
        "10 MB of binary data, `@rawhttp`",
        "The script asks for the body and looks at its length and its ends. One client.",
        "binary.py",
        payloads.BINARY_10MB,
        measure.large,
        (*WHOLE, CEILING),
        _LARGE,
        content_type=BINARY,
    ),
    Scenario(
        "tensors-1mb",
        "A tensor of 1 MB by the Open Inference Protocol, as bytes",
        "250,000 floats in the request, their doubles in the answer (`@raw_v2`). One client. mosec does not speak the "
        "protocol; its worker reads and writes what this request needs.",
        "tensors.py",
        payloads.TENSORS_IN_BYTES,
        measure.large,
        (OURS, OURS_THREADS, MOSEC_TENSORS),
        _LARGE,
        content_type=BINARY,
        environment=_V2,
    ),
    Scenario(
        "tensors-1mb-json",
        "The same tensor in JSON",
        "5 MB of JSON in each direction.",
        "tensors.py",
        payloads.TENSORS_IN_JSON,
        measure.large,
        (OURS, OURS_THREADS),
        _LARGE,
        environment=_V2,
    ),
    Scenario(
        "floats-out",
        "A million floats as the result",
        f"A list of floats, about {payloads.FLOATS_MB} MB of JSON. One client. The bare server sends the same bytes, "
        "made before.",
        "floats_out.py",
        payloads.FLOATS,
        measure.large,
        (OURS, OURS_THREADS, REFERENCE, "published-granian", "granian-rsgi", CEILING),
        _LARGE,
    ),
    Scenario(
        "sklearn",
        "The scikit-learn example",
        "`examples/sklearn`: a pipeline of a scaler and a logistic regression. One worker.",
        "examples/sklearn/score.py",
        payloads.IRIS,
        measure.one_and_some,
        (*WHOLE, "granian-rsgi"),
        (
            Column("c1.p50_ms", "median ms, 1 conn.", ".2f"),
            Column("c16.rps", f"requests/s, {measure.SOME} conn."),
            Column("c16.p99_ms", f"99th pct. ms, {measure.SOME} conn.", ".2f"),
        ),
    ),
    Scenario(
        "stream",
        "A streamed reply of a hundred parts",
        "A generator that gives a hundred parts of a kibibyte, sent in chunks. One worker.",
        "streaming.py",
        payloads.STREAM,
        measure.one_and_some,
        WHOLE,
        (
            Column("c1.p50_ms", "median ms, 1 conn.", ".2f"),
            Column("c16.rps", f"replies/s, {measure.SOME} conn."),
            Column("c16.p99_ms", f"99th pct. ms, {measure.SOME} conn.", ".2f"),
        ),
    ),
    Scenario(
        "scaling",
        "More workers for a model of 10 ms",
        f"`run()` sleeps, so that only the server can keep workers from adding up. {measure.MANY} connections.",
        "sleeping.py",
        payloads.SLEEP_10,
        measure.scaling,
        QUEUEING,
        (
            *(Column(f"w{count}.rps", f"requests/s, {count} w.") for count in measure.WORKERS),
            Column("of_linear", "of linear", ".3f"),
        ),
    ),
    Scenario(
        "worker-threads",
        "Sixteen calls at once in one worker",
        f"`run()` sleeps for 20 ms, and {measure.MANY} connections ask. Sixteen threads that cost nothing would answer "
        "800 requests per second.",
        "sleeping.py",
        payloads.SLEEP_20,
        measure.many,
        (OURS_WORKER_THREADS,),
        _MANY,
    ),
    Scenario(
        "async",
        "An async `run()` that awaits 20 ms",
        f"One worker, and {measure.MANY} connections. A loop that costs nothing would answer 3,200 requests a second. "
        "FastAPI awaits the same coroutine.",
        "awaiting.py",
        payloads.SLEEP_20,
        measure.many,
        (OURS, "fastapi"),
        _MANY,
    ),
    Scenario(
        "start",
        "From the command to the first healthy answer",
        "The health route is asked about every millisecond. Files are in the page cache.",
        "trivial.py",
        payloads.SMALL,
        measure.start,
        (*PLAIN, CEILING),
        (Column("seconds", "seconds", ".3f"),),
    ),
    Scenario(
        "memory",
        "Memory of all processes together",
        "Proportional (PSS: a shared page counts once over all processes) and resident (RSS: it counts in each). Idle "
        f"is after one request, loaded after {measure.MANY} connections kept it busy. A further worker is a third of "
        f"what {measure.MEMORY_WORKERS} workers take beyond one.",
        "trivial.py",
        payloads.SMALL,
        measure.memory,
        (*PLAIN, CEILING),
        (
            Column("idle.pss_mib", "idle PSS, MiB", ".1f"),
            Column("loaded.pss_mib", "after load PSS, MiB", ".1f"),
            Column("worker.pss_mib", "further worker PSS, MiB", ".1f"),
            Column("idle.rss_mib", "idle RSS, MiB", ".1f"),
            Column("loaded.rss_mib", "after load RSS, MiB", ".1f"),
        ),
    ),
)

SCENARIOS = {scenario.key: scenario for scenario in _TABLE}
# The sizes of installations. environments.py measures them once, and not in each round.
INSTALL = "install"
INSTALL_COLUMNS = (Column("packages", "packages"), Column("mib", "MiB", ".1f"))
