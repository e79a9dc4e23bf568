"""``python -m benchmarks.engines --ray PYTHON``: what Ray Serve costs, beside a server alone and an application of
Serve that does nothing.

Owns the order of measurements and the table of docs/deploy.md. Each round measures all three in
turns, at each number of connections; another one is first in each round. Ray runs once with its own
proxy and once with HAProxy. README.md says how to run it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import load, machine, plan
from .environments import FOLDER, ROOT
from .load import Request
from .results import Results, Sample, median
from .server import TICKS, read_process

FIGURES = ROOT / "benchmarks" / "results" / "engines.json"
PAGE = ROOT / "docs" / "deploy.md"
# Ray computes also without requests. That is measured for so many seconds, and subtracted.
IDLE_SECONDS = 5.0
SCRIPT = ROOT / "benchmarks" / "scripts" / "trivial.py"
CONNECTIONS = (1, 16)
PROXIES = {
    "proxy": ("Ray Serve, its own proxy", {}),
    "haproxy": (
        "Ray Serve, HAProxy",
        {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
    ),
}
ALONE, NOTHING, OURS = "alone", "nothing", "script"


@contextlib.contextmanager
def node(python: Path, variables: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A Ray node with its applications, and the server alone. Yields their ports."""
    # Without PYTHONPATH, the package of this folder. It should be an optimised build (make serve has one).
    environment = {"PYTHONPATH": str(ROOT), **os.environ, **variables}
    command = [str(python), str(ROOT / "benchmarks" / "peers" / "ray_serve.py"), str(SCRIPT)]
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "ray.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            # Ray writes lines of its own.
            line = next((line for line in process.stdout if line.startswith(b'{"serve"')), None)
            if line is None:
                raise SystemExit(f"Ray Serve does not start; {FOLDER / 'ray.log'} says why")
            yield {**json.loads(line), "pid": process.pid}
            process.stdin.close()


def used(root: int) -> float:
    """Seconds of processor time of a process and its descendants so far, without those that have ended."""
    running = {int(name): read_process(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    found = {root}
    while more := {pid for pid, read in running.items() if read and read.parent in found} - found:
        found |= more
    return sum(read.user + read.system for pid, read in running.items() if read and pid in found) / TICKS


def measure(python: Path, rounds: int, seconds: float) -> Results:
    """All figures. The file of the request is made on the way."""
    load.find_wrk()
    file = FOLDER / "empty.json"
    FOLDER.mkdir(exist_ok=True)
    file.write_text("{}")
    request = Request(file)
    results = Results(machine.description(), 0, seconds)
    for proxy, (_, variables) in PROXIES.items():
        with node(python, variables) as told:
            results.versions["ray"] = {"ray": told["ray"]}
            targets = [(NOTHING, told["serve"], "/nothing/score"), (OURS, told["serve"], "/script/score")]
            targets.append((ALONE, told["alone"], "/score"))
            for _, port, path in targets:
                load.wrk(port, request._replace(path=path), 16, 2)  # warm up
            before = used(told["pid"])
            time.sleep(IDLE_SECONDS)
            idle = (used(told["pid"]) - before) / IDLE_SECONDS
            for number in range(rounds):
                for connections in CONNECTIONS:
                    for turn in range(len(targets)):
                        name, port, path = targets[(turn + number) % len(targets)]
                        before, began = used(told["pid"]), time.perf_counter()
                        found = load.wrk(port, request._replace(path=path), connections, seconds)
                        spent = used(told["pid"]) - before - idle * (time.perf_counter() - began)
                        values = {
                            "rps": found.rps,
                            "p50_ms": found.p50_ms,
                            "p99_ms": found.p99_ms,
                            "cpu_ms": 1000 * spent / found.requests,
                        }
                        results.samples.append(Sample(f"{proxy}.{connections}", name, number, values))
                        print(f"{proxy}, {connections} connections, {name}: {values}", flush=True)
                results.rounds = number + 1
    return results


# ---- The page


def table(results: Results) -> str:
    """The table of the page, from the figures."""
    lines = [
        "| behind | connections | | requests/s | p50, ms | p99, ms | processor time, ms |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    names = {ALONE: "the server alone", NOTHING: "an application that does nothing", OURS: "the script"}
    for proxy, (title, _) in PROXIES.items():
        for connections in CONNECTIONS:
            for name in (ALONE, NOTHING, OURS):
                shown = [
                    median(results.spread(f"{proxy}.{connections}", value, name), digits)
                    for value, digits in (("rps", 0), ("p50_ms", 2), ("p99_ms", 2), ("cpu_ms", 2))
                ]
                behind = f"nothing, beside {title}" if name == ALONE else title
                lines.append(f"| {behind} | {connections} | {names[name]} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", *(_summary(results, proxy) for proxy in PROXIES)])


def _summary(results: Results, proxy: str) -> str:
    """How the script compares with nothing behind the same proxy."""
    title = PROXIES[proxy][0]
    ratio = results.ratio(f"{proxy}.{CONNECTIONS[-1]}", "rps", OURS, NOTHING)
    slow, fast = (results.spread(f"{proxy}.{CONNECTIONS[0]}", "p50_ms", name) for name in (OURS, NOTHING))
    if ratio is None or slow is None or fast is None:
        return f"- {title}: not measured."
    more = slow.median - fast.median
    return (
        f"- {title}: the script gets {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) of the requests/s of the"
        f" application that does nothing, at {CONNECTIONS[-1]} connections. At {CONNECTIONS[0]}, its median is"
        f" {abs(more):.2f} ms {'less' if more < 0 else 'more'}."
    )


def write(results: Results) -> None:
    """Put the table into the page."""
    text = plan.fill(PAGE.read_text("utf-8"), "engines", table(results), by="benchmarks/engines.py")
    PAGE.write_text(text, "utf-8")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines")
    parser.add_argument("--ray", type=Path, metavar="PYTHON", help="an interpreter that has Ray (make test-ray)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args(arguments)
    if options.ray is not None:
        measure(options.ray, options.rounds, options.seconds).save(FIGURES)
    write(Results.load(FIGURES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
