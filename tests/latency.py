"""How fast a route answers, judged so that a busy machine does not fail a test (promised: 10 ms, 99
times of 100).

A machine that does other things at the same time misses that now and then. So the median is held to
it and the slowest answers get five times as long. More is allowed only while a process that just
echoes needs long as well. And a test tries again, because a bad moment passes, while a server that
waits for its workers stays slow.

On a machine with more to do than it has processors for, times say nothing about the server. There
it counts that all answers came at all, while the workers could give none.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping

from harness import KEPT, Server

ATTEMPTS = 6
# Limits in seconds, by share of the answers: half of them within 10 ms, 99 % within 50 ms.
LIMITS = {0.5: 0.010, 0.99: 0.050}
# An answer may take this many times as long as an echo, because then the machine is slow. Both need
# one wake-up of the other side and one back.
ECHOES = 5
ROUNDS = 150


def measure(server: Server, targets: Mapping[str, int], port: int | None) -> tuple[list[float], list[float]]:
    """Sorted seconds for answers to GET of these targets, on one connection, and for echoes in
    between."""
    answers, echoes = [], []
    with (
        server.connect(port) as connection,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as echo,
    ):
        assert echo.stdin is not None
        assert echo.stdout is not None
        for _ in range(ROUNDS):
            for target, status in targets.items():
                began = time.perf_counter()
                assert connection.exchange("GET", target, headers=KEPT).status == status
                answers.append(time.perf_counter() - began)
            began = time.perf_counter()
            echo.stdin.write(b"x")
            assert echo.stdout.read(1) == b"x"
            echoes.append(time.perf_counter() - began)
    return sorted(answers), sorted(echoes)


def assert_fast(server: Server, targets: Mapping[str, int], port: int | None = None) -> None:
    """Check that GET of these targets is answered with these statuses within the limits."""
    seen: list[dict[float, tuple[float, ...]]] = []
    for _ in range(ATTEMPTS):
        measured = measure(server, targets, port)
        seen.append({share: tuple(times[int(len(times) * share)] for times in measured) for share in LIMITS})
        if all(answer < max(LIMITS[share], ECHOES * echo) for share, (answer, echo) in seen[-1].items()):
            return
    if os.getloadavg()[0] > 2 * (os.cpu_count() or 1):
        return
    raise AssertionError(f"seconds of answers and of echoes: {seen}")
