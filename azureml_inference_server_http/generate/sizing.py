"""How much time and memory a deployment gets, from what the script needed when it was measured.

Owns the rules; pure functions. ``measuring.py`` has the measurement. What is measured is rounded up in steps that are
wide against the differences between two measurements of one script, so that they give the same files.
"""

from __future__ import annotations

import math
from typing import NamedTuple

# Assumed for a script that was not measured.
UNKNOWN_START = 60
UNKNOWN_MEMORY = 512
# The start may take this many times as long as measured: another machine is slower, and all workers start at once.
START_FACTOR = 10
SHORTEST_START = 60
# Memory of supervisor and front, in MiB.
OWN_MEMORY = 64
# A worker may grow to this multiple of what was measured before the limit is reached.
GROWTH = 1.5
# Memory is rounded up to multiples of this many MiB.
STEP = 64
MIB = 1024 * 1024
# Seconds that a measured start is rounded up to; above them, to whole minutes.
START_STEPS = (5, 10, 15, 20, 30, 45, 60)
# Measured memory is rounded up to a multiple of this share of the power of two below it, and to this many MiB at least.
MEMORY_SHARE = 4
LEAST_MEMORY_STEP = 32
# Bodies may take this much memory of a container, unless AZMLINFSRV_MAX_BUFFERED says otherwise.
LEAST_BUFFERED = 256 * MIB


class Measured(NamedTuple):
    """What one worker needed. ``seconds``: for import and init(); ``mib``: resident memory at most; ``samples``: how
    many requests it has answered."""

    seconds: int
    mib: int
    samples: int


class Sizes(NamedTuple):
    """What the files say. Memory is in MiB, ``buffered`` in bytes (AZMLINFSRV_MAX_BUFFERED)."""

    start_seconds: int
    memory_request: int
    memory_limit: int
    cpus: int
    buffered: int


def measured(seconds: float, peak: int, samples: int) -> Measured:
    """A measurement, rounded up."""
    start = next((step for step in START_STEPS if seconds <= step), _round_up(seconds, 60))
    mib = peak / MIB
    step = max(LEAST_MEMORY_STEP, 2 ** math.floor(math.log2(max(mib, 1))) // MEMORY_SHARE)
    return Measured(start, _round_up(mib, step), samples)


def sizes(found: Measured | None, workers: int, shares_model: bool, buffered: int | None, max_request: int) -> Sizes:
    """What a server with so many workers gets. ``shares_model``: the workers are threads; ``buffered``: the given
    AZMLINFSRV_MAX_BUFFERED; ``max_request``: the largest request body."""
    seconds = found.seconds if found else UNKNOWN_START
    worker = found.mib if found else UNKNOWN_MEMORY
    copies = 1 if shares_model else workers
    bodies = buffered if buffered is not None else max(LEAST_BUFFERED, 2 * max_request)
    return Sizes(
        start_seconds=_round_up(max(SHORTEST_START, START_FACTOR * seconds), 10),
        memory_request=_round_up(OWN_MEMORY + copies * worker, STEP),
        memory_limit=_round_up(OWN_MEMORY + copies * worker * GROWTH + bodies / MIB, STEP),
        cpus=workers,
        buffered=bodies,
    )


def _round_up(number: float, step: int) -> int:
    return math.ceil(number / step) * step
