"""The servers that a chaos run can harm: for each script of ``scripts/`` its number of workers, its
options, and what its calls have in common.

A run harms the servers of one group. Data only. Runs in the test process.
"""

from __future__ import annotations

import dataclasses
from enum import Enum

# The time limit of a call. On a busy machine a worker may not run for some seconds.
LIMIT_MS = 4000


class Calls(Enum):
    """How a worker calls run(), and so which rules hold for requests (``invariants.py``)."""

    ONE_BY_ONE = "one request after the other"
    AT_ONCE = "several requests at once, each with a call of its own"
    JOINED = "several requests with one call, and some of them again alone, to compare the answers"
    BATCHED = "several requests with one call"

    @property
    def for_several(self) -> bool:
        """True if a call may be made for several requests."""
        return self in (Calls.JOINED, Calls.BATCHED)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A server of a chaos run."""

    workers: int
    calls: Calls = Calls.ONE_BY_ONE
    options: tuple[str, ...] = ()


GROUPS: dict[str, dict[str, Subject]] = {
    "serial": {"text": Subject(2), "raw": Subject(2), "schema": Subject(1)},
    "async": {
        "async_text": Subject(2, Calls.AT_ONCE),
        "async_raw": Subject(1, Calls.AT_ONCE, ("--max_concurrency", "4")),
        "async_batched": Subject(1, Calls.BATCHED),
    },
    "joined": {
        "rows": Subject(2, Calls.JOINED, ("--max_batch_size", "16")),
        "batched": Subject(1, Calls.BATCHED),
    },
}
SUBJECTS = {name: subject for group in GROUPS.values() for name, subject in group.items()}
# --worker_class thread refuses an async run().
NEEDS_PROCESSES = {"async"}
