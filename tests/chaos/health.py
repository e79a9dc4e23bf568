"""How fast and how truthful health was while everything else happened: runs ``probe.py`` and reads
what it prints.

Runs in the test process; the probes are its children.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

PROBE = Path(__file__).with_name("probe.py")


class Sample(NamedTuple):
    """One health check: its time, the status (or 0 or -1, see ``probe.py``), and its duration."""

    time: float
    status: int
    milliseconds: float


class Probe:
    """Checks the health of one server until ``stop``."""

    def __init__(self, port: int, output: Path) -> None:
        self._path = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(PROBE), str(port)], stdin=subprocess.PIPE, stdout=file
            )

    def stop(self) -> list[Sample]:
        """End the probe. Returns its samples."""
        self._process.communicate(timeout=20)
        rows = (line.split() for line in self._path.read_text().splitlines())
        return [Sample(float(time), int(status), float(took)) for time, status, took in rows]


class Latency(NamedTuple):
    """Latencies in milliseconds, and the number of health checks that failed because a front
    died."""

    answers: int
    p50: float
    p99: float
    worst: float
    cut: int
    refused: int


def summarise(samples: list[Sample]) -> Latency:
    """The figures of all samples."""
    took = sorted(sample.milliseconds for sample in samples if sample.status > 0)

    def quantile(share: float) -> float:
        return took[min(len(took) - 1, int(share * len(took)))] if took else float("nan")

    counts = [sum(sample.status == status for sample in samples) for status in (0, -1)]
    return Latency(len(took), quantile(0.5), quantile(0.99), quantile(1), *counts)
