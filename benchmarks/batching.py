"""``python -m benchmarks.batching``: what batches bring, beside the same server without them and beside
the batches of mosec, LitServe and Ray Serve.

Owns the order of measurements and the table of docs/performance/batching.md. One worker serves each
model; BLAS has one thread everywhere. In each round the servers take turns, and another one is first
in each round. Needs an interpreter with this server, numpy, scikit-learn, inference-schema, mosec,
litserve and ray[serve]: ``--python``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from . import load, machine
from .environments import FOLDER, ROOT
from .load import Request
from .results import Results, Sample, median

FIGURES = ROOT / "benchmarks" / "results" / "batching.json"
PAGE = ROOT / "docs" / "performance" / "batching.md"
OFF, ON, ALONE = "off", "on", "alone"
BATCH = 32
# Prints the fastest of 20 calls, in milliseconds, for one row and for a batch.
CALLS = """
import sys, time
import numpy as np
import scoring
script, width = scoring.load(), int(sys.argv[1])
def fastest(rows):
    data, times = np.random.default_rng(2).normal(0, 1, (rows, width)).astype(np.float32), []
    for _ in range(20):
        began = time.perf_counter()
        script.predict(data)
        times.append(time.perf_counter() - began)
    return min(times) * 1e3
print(fastest(1), fastest(int(sys.argv[2])))
"""


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another server with batches: its title, its program, and the path that is 200 when it is ready."""

    title: str
    program: str
    health: str
    package: str
    # How long a request waits for others. For mosec and LitServe that of 1, 2, 10 and 30 ms with the most requests per
    # second; Ray Serve was not measured with other times.
    wait_ms: int


PEERS = {
    "mosec": Peer("mosec", "mosec_batching.py", "/", "mosec", 1),
    "litserve": Peer("LitServe", "litserve_batching.py", "/health", "litserve", 10),
    "ray": Peer("Ray Serve", "ray_batching.py", "/-/healthz", "ray", 10),
}
NAMES = {OFF: "one call for each request", ON: f"`--max_batch_size {BATCH}`"}
NAMES.update((name, f"{peer.title}, batches of {BATCH}") for name, peer in PEERS.items())
# Scripts, with the numbers of a row.
MODELS = {"network": 2048, "forest": 20}
CONNECTIONS = 64
THREADS = {name: "1" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def command(python: Path, server: str, model: str, port: int) -> list[str]:
    """The command of a server for this model."""
    script = str(ROOT / "benchmarks" / "scripts" / f"{model}.py")
    if server in PEERS:
        peer = str(ROOT / "benchmarks" / "peers" / PEERS[server].program)
        # mosec reads its options itself, the others take them from the environment.
        return [str(python), peer, *(["--port", str(port), "--timeout", "60000"] if server == "mosec" else [])]
    options = ["--entry_script", script, "--port", str(port), "--host", "127.0.0.1", "--worker_count", "1"]
    return [str(python), "-m", "azureml_inference_server_http", *options] + ["--max_batch_size", str(BATCH)] * (
        server == ON
    )


@contextlib.contextmanager
def served(python: Path, server: str, model: str) -> Iterator[int]:
    """The port of a running server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    script = ROOT / "benchmarks" / "scripts" / f"{model}.py"
    environment = {
        **os.environ,
        **THREADS,
        "BENCH_SCRIPT": str(script),
        "BENCH_BATCH": str(BATCH),
        "BENCH_PORT": str(port),
    }
    health = "/"
    if server in PEERS:
        environment["BENCH_WAIT_MS"] = str(PEERS[server].wait_ms)
        health = PEERS[server].health
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"batching-{server}.log").open("wb") as log:
        # In a folder without the package: ``-m`` would take the clone's own, which may be a slow build.
        process = subprocess.Popen(
            command(python, server, model, port),
            cwd=FOLDER,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}{health}", log.name)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            # LitServe leaves processes behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], health: str, log: str) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        # mosec answers 200 as soon as it listens, the others 503 or nothing until they are ready.
        with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"the server does not start; {log} says why")


def measure(python: Path, rounds: int, seconds: float, servers: Sequence[str]) -> Results:
    """All figures. The files of the requests are made on the way."""
    load.find_wrk()
    results = Results(machine.description(), 0, seconds, versions_of(python, servers))
    for model, width in MODELS.items():
        chance = random.Random(width)
        file = FOLDER / f"{model}.json"
        FOLDER.mkdir(exist_ok=True)
        file.write_text(json.dumps({"data": [[round(chance.gauss(0, 1), 4) for _ in range(width)]]}))
        with contextlib.ExitStack() as stack:
            ports = {server: stack.enter_context(served(python, server, model)) for server in servers}
            for port in ports.values():
                load.wrk(port, Request(file), CONNECTIONS, 5)  # warm up: batches grow
            for number in range(rounds):
                results.samples.append(Sample(model, ALONE, number, call_alone(python, model, width)))
                for connections in (CONNECTIONS, 1):
                    for turn in range(len(servers)):
                        server = servers[(turn + number) % len(servers)]
                        found = load.wrk(ports[server], Request(file), connections, seconds)
                        values = {"rps": found.rps, "p50_ms": found.p50_ms, "p99_ms": found.p99_ms}
                        results.samples.append(Sample(f"{model}.{connections}", server, number, values))
                        print(f"{model}, {connections} connections, {server}: {values}", flush=True)
                results.rounds = number + 1
    return results


def call_alone(python: Path, model: str, width: int) -> dict[str, float]:
    """The time of the model's calls without a server."""
    script = ROOT / "benchmarks" / "scripts" / f"{model}.py"
    environment = {
        **os.environ,
        **THREADS,
        "BENCH_SCRIPT": str(script),
        "PYTHONPATH": str(ROOT / "benchmarks" / "peers"),
    }
    command = [python, "-c", CALLS, str(width), str(BATCH)]
    one, batch = subprocess.check_output(command, env=environment, text=True).split()
    return {"one_ms": float(one), "batch_ms": float(batch)}


def versions_of(python: Path, servers: Sequence[str]) -> dict[str, dict[str, str]]:
    """The version of each peer."""
    program = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    packages = {server: PEERS[server].package for server in servers if server in PEERS}
    return {
        server: {package: subprocess.check_output([python, "-c", program, package], text=True).strip()}
        for server, package in packages.items()
    }


def table(results: Results) -> str:
    """The table of the page."""
    lines = ["| model | connections | | requests/s | p50, ms | p99, ms | times off |"]
    lines.append("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    for model in MODELS:
        for connections in (CONNECTIONS, 1):
            for server, name in NAMES.items():
                figure = f"{model}.{connections}"
                spreads = [results.spread(figure, value, server) for value in ("rps", "p50_ms", "p99_ms")]
                if spreads[0] is None:
                    continue
                shown = " | ".join(median(spread, digits) for spread, digits in zip(spreads, (0, 2, 2)))
                ratio = results.ratio(figure, "rps", server, OFF)
                lines.append(f"| {model} | {connections} | {name} | {shown} | {median(ratio, 2)} |")
    return "\n".join(lines)


def alone(results: Results, model: str) -> str:
    """A sentence about the time of the model without a server; empty if that was not measured."""
    one, batch = (results.spread(model, value, ALONE) for value in ("one_ms", "batch_ms"))
    if one is None or batch is None:
        return ""
    times = f"{one.median:.2f} ms for one row and {batch.median:.2f} ms for {BATCH}"
    gain = f"{one.median * BATCH / batch.median:.1f} times less for each row"
    return f"\nWithout a server, a call of the {model} takes {times}, {gain}.\n"


def machine_line(found: Mapping[str, object]) -> str:
    """The machine in one line."""
    return "{cpu}, {cores} cores, {memory_gib} GiB, {kernel}, Python {python}, wrk {wrk}, {date}".format(**found)


def write(results: Results) -> None:
    """Write the page."""
    versions = ", ".join(
        f"{PEERS[server].title} {version}"
        for server, packages in results.versions.items()
        for version in packages.values()
    )
    versions = versions and f" {versions}."
    PAGE.write_text(
        f"""# Batches

<!-- Written by `python -m benchmarks.batching` from benchmarks/results/batching.json. -->

[--max_batch_size](../batching.md) beside one call for each request and beside other servers, whose scripts were written
for batches. One worker; BLAS and OpenMP have one thread everywhere; wrk shares the cores. The network has three layers
of 2,048 in numpy (float32), the forest 200 trees of scikit-learn; a request has one row. "Times off" is the ratio of
requests per second to one call for each request, the median of the rounds' ratios.

Machine: {machine_line(results.machine)}. {results.rounds} rounds of {results.seconds:g} s.{versions}

{table(results)}
{"".join(alone(results, model) for model in MODELS)}""",
        "utf-8",
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching")
    parser.add_argument("--python", type=Path, help="an interpreter that has all of them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", default=",".join(NAMES), help="servers (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.python is not None:
        measure(options.python, options.rounds, options.seconds, options.only.split(",")).save(FIGURES)
    write(Results.load(FIGURES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
