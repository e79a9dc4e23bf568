"""One chaos run from start to end: servers, traffic alone, traffic and monkey, traffic alone, TERM,
and the reckoning.

The two quiet phases send the same requests, so that memory can be compared between their ends. Each
script of the group (``subjects.py``) has a server of its own. Runs in the test process.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from harness import Server, eventually

from . import health, invariants, journal, memory, orders, polite, rude, telemetry
from .evidence import Evidence, Violation
from .monkey import Monkey, is_healthy
from .report import Report
from .subjects import GROUPS, LIMIT_MS, SUBJECTS, Calls
from .telemetry import RudeReceiver
from .traffic import Kinds, Note, Traffic

SCRIPTS = Path(__file__).parent / "scripts"
# What no log of a server may have. The last one: calls are not joined any more.
FAULTS = (
    *("panicked at", "does not understand", "Refused a worker", "unexpected internal error", "Exception ignored"),
    "Each request gets a call of its own from now on",
)
# The share by which memory may grow during a run.
SHARE = 0.10
# The same for a short run, which ends before the memory allocators have reached their usual size.
SHORT_RUN_SHARE = 0.2
# Settings with which glibc returns all free memory. Otherwise the amount that it keeps would vary,
# and hide a leak.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
# Milliseconds that health may take, 99 times of 100. Only a long run has enough answers to tell.
# The promise is 10 ms (e2e/test_health_latency.py). Here three servers, their clients and a new
# interpreter every second share the cores; on two of them most of the time is the scheduler's: 18
# to 20 ms.
HEALTH_P99, LONG = 50.0, 300.0
# Limit in seconds for a server to become idle when the traffic has ended.
REST = 45.0
# Limit in seconds for a server to end: its --graceful_timeout, and a bit more on a busy machine.
END = 40.0


def run(folder: Path, seconds: float, seed: int, group: str, worker_class: str = "process") -> Report:
    """``seconds`` of chaos, and a tenth of that before and after it for the comparison of
    memory."""
    quiet = min(max(seconds / 10, 2.0), 20.0)
    scripts = list(GROUPS[group])
    with ExitStack() as stack:
        receivers = {script: stack.enter_context(RudeReceiver(f"{seed}/{script}")) for script in scripts}
        servers = {script: _start(folder, script, worker_class, receivers[script], stack) for script in scripts}
        ports = {script: server.port for script, server in servers.items()}
        for server in servers.values():
            server.wait_until_ready()
        notes = _quiet_phase("before", ports, quiet, seed)
        before = memory.measure(list(servers.values()))
        probes = {script: health.Probe(port, folder / f"{script}.health") for script, port in ports.items()}
        traffic = Traffic("chaos", ports, kinds(ports), seed)
        monkey = Monkey(servers, traffic, seed, worker_class)
        with traffic:
            monkey.start()
            time.sleep(seconds)
            monkey.stop()
            # Called while requests still arrive, because every request that waits must be answered.
            found = []
            for script, server in servers.items():
                found += _come_to_rest(server, SUBJECTS[script].workers if worker_class == "process" else 0)
        samples = {script: probe.stop() for script, probe in probes.items()}
        # What waits to be sent would count as memory that has grown.
        for script, server in servers.items():
            found += telemetry.settle(server, receivers[script])
        notes += traffic.notes() + _quiet_phase("after", ports, quiet, seed)
        after = memory.measure(list(servers.values()))
        for script, server in servers.items():
            found += telemetry.settle(server, receivers[script])
        found += [violation for server in servers.values() for violation in _end(server)]
    latency = {script: health.summarise(seen) for script, seen in samples.items()}
    calls: list[int] = []
    for script in servers:
        written = journal.read(folder / f"{script}.journal")
        calls += map(len, written.calls().values())
        own = [note for note in notes if note.script == script]
        harms = [harm for harm in monkey.harms if harm.script == script]
        deaths = [death for death in monkey.front_deaths if death.script == script]
        deadly = orders.DEADLY if worker_class == "process" else orders.DEADLY_FOR_THREADS
        evidence = Evidence(own, written, harms, deaths, SUBJECTS[script].calls, deadly)
        found += invariants.violations(evidence)
        found += _of_health(script, latency[script], samples[script], seconds)
    found += _of_memory(before, after, seconds)
    return Report(seconds, seed, group, worker_class, notes, calls, monkey.diary, latency, before, after, found)


def kinds(scripts: Iterable[str]) -> dict[str, Kinds]:
    """The kinds of requests that each of these scripts gets."""
    return {script: _kinds(SUBJECTS[script].calls) for script in scripts}


def _kinds(calls: Calls) -> Kinds:
    both = {**polite.KINDS, **rude.KINDS}
    if calls is Calls.AT_ONCE:
        return {**both, **rude.ASYNC_KINDS}
    if not calls.for_several:
        return both
    # A call for several requests returns a list or rows, not a stream.
    both = {name: kind for name, kind in both.items() if name not in orders.STREAMS}
    return {**both, **polite.BATCHED_KINDS} if calls is Calls.BATCHED else both


def _start(folder: Path, script: str, worker_class: str, receiver: RudeReceiver, stack: ExitStack) -> Server:
    (folder / script).mkdir()
    options = {
        "--worker_count": SUBJECTS[script].workers,
        "--max_request_size": rude.MAX_REQUEST_SIZE,
        "--client_timeout": rude.CLIENT_TIMEOUT,
        "--keep_alive": 600,
        # Left out for processes, because older versions do not have this option.
        **({} if worker_class == "process" else {"--worker_class": worker_class}),
    }
    server = Server(
        folder / script,
        str(SCRIPTS / f"{script}.py"),
        *(str(part) for option in options.items() for part in option),
        *SUBJECTS[script].options,
        CHAOS_JOURNAL=str(folder / f"{script}.journal"),
        PYTHONPATH=str(SCRIPTS),
        SCORING_TIMEOUT_MS=str(LIMIT_MS),
        **GIVE_BACK,
        **receiver.environment(),
    )
    stack.callback(server.stop)
    return server


def _quiet_phase(name: str, ports: Mapping[str, int], seconds: float, seed: int) -> list[Note]:
    with Traffic(name, ports, kinds(ports), seed) as traffic:
        time.sleep(seconds)
    return traffic.notes()


def _come_to_rest(server: Server, workers: int) -> list[Violation]:
    """Wait until the server is ready and has as many worker processes as at the start."""
    deadline = time.monotonic() + REST
    missing = 0
    while time.monotonic() < deadline:
        missing = workers - len(server.workers())
        if missing == 0 and is_healthy(server):
            return []
        if missing:
            server.signal(signal.SIGTTIN if missing > 0 else signal.SIGTTOU)
        time.sleep(0.5)
    detail = f"{server.folder.name} was not ready within {REST} s, with {missing} workers missing."
    return [Violation("a server recovers", None, f"{detail} Its log ends:\n{_log_end(server)}")]


def _end(server: Server) -> list[Violation]:
    found = []
    server.signal(signal.SIGTERM)
    try:
        code = server.wait_for_exit(END)
        eventually(lambda: not server.members(), "all processes are gone")
    except (subprocess.TimeoutExpired, AssertionError):
        found.append(
            Violation("TERM ends the command with 0", None, f"{server.folder.name} goes on:\n{_log_end(server)}")
        )
        server.signal(signal.SIGINT)
    else:
        if code != 0:
            found.append(Violation("TERM ends the command with 0", None, f"{server.folder.name} ended with {code}"))
    for text in FAULTS:
        if text in server.output():
            found.append(Violation("nothing breaks inside", None, f"{text!r} in the output of {server.folder.name}"))
    return found


def _log_end(server: Server) -> str:
    return "\n".join(server.stdout().splitlines()[-20:])


def _of_health(script: str, latency: health.Latency, samples: list[health.Sample], seconds: float) -> list[Violation]:
    found = []
    if latency.refused:
        found.append(Violation("no connection is refused", None, f"{latency.refused} of the health checks of {script}"))
    if strange := {sample.status for sample in samples} - {-1, 0, 200, 503}:
        found.append(Violation("health is 200 or 503", None, f"{script} answered {strange}"))
    if seconds >= LONG and latency.p99 > HEALTH_P99:
        found.append(Violation("health is fast", None, f"p99 of {script} is {latency.p99:.2f} ms"))
    return found


def _of_memory(before: memory.Memory, after: memory.Memory, seconds: float) -> list[Violation]:
    share = SHARE if seconds >= LONG else SHORT_RUN_SHARE
    # All processes are added up, because the share of a process in common pages changes with every
    # fork.
    first, last = sum(before), sum(after)
    if last <= first * (1 + share):
        return []
    return [Violation("memory does not grow", None, f"{first:.1f} MiB became {last:.1f} MiB")]
