"""The queue that the mixed scenario is measured against: one line, first come first served, without
any overhead.

Pure arithmetic: which requests come when, how long each takes in such a queue, and percentiles.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from typing import NamedTuple

FAST_MS = 20
SLOW_MS = 200
SLOW_SHARE = 0.1
# Share of the workers' time that the requests need. Far enough below 1 that no backlog grows, so
# that percentiles mean something, and high enough that requests wait for each other.
UTILISATION = 0.7


class Arrival(NamedTuple):
    """One request: its arrival in seconds, and the time that its ``run()`` takes."""

    at: float
    ms: float


def poisson_arrivals(seed: int, seconds: float, workers: int) -> list[Arrival]:
    """Requests of independent clients for ``seconds``; the same seed gives the same ones. Exactly
    one in ten is slow: with few requests a share left to chance would be most of the spread between
    rounds."""
    chance = random.Random(seed)
    mean_seconds = ((1 - SLOW_SHARE) * FAST_MS + SLOW_SHARE * SLOW_MS) / 1000
    rate = UTILISATION * workers / mean_seconds
    count = max(10, round(rate * seconds))
    kinds = [SLOW_MS] * round(count * SLOW_SHARE) + [FAST_MS] * (count - round(count * SLOW_SHARE))
    chance.shuffle(kinds)
    at, arrivals = 0.0, []
    for ms in kinds:
        at += chance.expovariate(rate)
        arrivals.append(Arrival(at, ms))
    return arrivals


def single_queue(arrivals: Sequence[Arrival], workers: int) -> list[float]:
    """Seconds that each arrival would take with one queue in front of ``workers`` and no overhead,
    in the order of arrival."""
    free_at = [0.0] * workers
    times = []
    for arrival in arrivals:
        starts = max(arrival.at, heapq.heappop(free_at))
        ends = starts + arrival.ms / 1000
        heapq.heappush(free_at, ends)
        times.append(ends - arrival.at)
    return times


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` per cent of them do not exceed."""
    ordered = sorted(values)
    # Computed with whole numbers, because 0.99 * 100 is more than 99 in floating point.
    rank = -(-len(ordered) * round(share * 100) // 10000)
    return ordered[max(0, rank - 1)]
