"""How long ``azmlinfsrv validate`` takes, beside what people did before: start the published server, poll until it is
ready, post the sample, and stop it.

    python -m benchmarks.validation --candidate .venv/bin/python --reference .venv-reference/bin/python

Rounds alternate between the two, so that both see the same machine. Prints the table of docs/validate.md. Needs
scikit-learn in both environments; the model is trained if it is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MODULE = "azureml_inference_server_http"
# Seconds between two questions whether the server is ready: a loop with curl does not ask more often.
PAUSE = 0.05
PATIENCE = 120


class Example(NamedTuple):
    """A script with one sample."""

    name: str
    folder: Path
    options: tuple[str, ...]


class Taken(NamedTuple):
    """Seconds of one run: of the clock, of these beyond the script's own time, and of the processors. The last does not
    depend on what else the machine does."""

    seconds: float
    overhead: float
    processor: float


def examples(python: str) -> list[Example]:
    """The quickstart, and the scikit-learn example with its model."""
    trained = ROOT / "examples" / "sklearn"
    if not (trained / "models/iris/1/model.joblib").exists():
        subprocess.run([python, "train.py"], cwd=trained, check=True, stdout=subprocess.DEVNULL)
    return [
        Example("quickstart", ROOT / "examples" / "quickstart", ()),
        Example("scikit-learn", trained, ("--model_dir", "models/iris/1")),
    ]


def processor_seconds() -> float:
    """Processor time of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def validate(python: str, example: Example) -> Taken:
    """Validate the script with its sample, which is sent twice."""
    command = [python, "-m", MODULE, "validate", "--entry_script", "score.py", *example.options]
    started, before = time.monotonic(), processor_seconds()
    done = subprocess.run(
        [*command, "--sample", "sample-request.json", "--format", "json"],
        cwd=example.folder,
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    seconds = time.monotonic() - started
    return Taken(seconds, seconds - json.loads(done.stdout)["script_seconds"], processor_seconds() - before)


def start_and_post(python: str, example: Example) -> Taken:
    """Start the server, poll ``GET /`` until it is 200, post the sample, and stop the server."""
    port = _free_port()
    command = [python, "-m", f"{MODULE}.amlserver", "--entry_script", "score.py", *example.options, "--port", str(port)]
    started, before = time.monotonic(), processor_seconds()
    with subprocess.Popen(
        command, cwd=example.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as server:
        try:
            _wait_until_ready(server, f"http://127.0.0.1:{port}/")
            body = (example.folder / "sample-request.json").read_bytes()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/score", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
                json.load(reply)
            server.terminate()
            server.wait(PATIENCE)
        finally:
            server.kill()
    seconds = time.monotonic() - started
    return Taken(seconds, seconds, processor_seconds() - before)


def _wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE):
            return
        time.sleep(PAUSE)
    raise SystemExit(f"{url} did not get ready")


def _free_port() -> int:
    """A port that nobody uses at the moment; the published server cannot choose one itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidate", default=sys.executable, help="Python with this server")
    parser.add_argument("--reference", required=True, help="Python with the published server")
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    candidate, reference = (os.path.abspath(python) for python in (given.candidate, given.reference))
    print(
        "| script | `validate` | beyond the script | processor time | 1.5.1: start, poll, post, stop | processor time |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for example in examples(candidate):
        validated, by_hand = [], []
        for _ in range(given.rounds):
            validated.append(validate(candidate, example))
            by_hand.append(start_and_post(reference, example))
        cells = [
            _shown([each.seconds for each in validated]),
            _shown([each.overhead for each in validated]),
            _shown([each.processor for each in validated]),
            _shown([each.seconds for each in by_hand]),
            _shown([each.processor for each in by_hand]),
        ]
        print(f"| {example.name} | {' | '.join(cells)} |", flush=True)
    return 0


def _shown(seconds: list[float]) -> str:
    """The median, and the lowest and highest value."""
    read: Callable[[float], str] = "{:.2f}".format
    return f"{read(statistics.median(seconds))} s ({read(min(seconds))} to {read(max(seconds))})"


if __name__ == "__main__":
    sys.exit(main())
