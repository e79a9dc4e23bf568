"""Keeps the workers: those that run, those that have been asked for, and which worker replaces
which.

Bookkeeping for the decisions in ``state.py`` and ``children.py``. It also knows the time by
which a worker must have connected to a new front. Nothing here touches the operating system. Used
in the supervisor process, and in the server with worker threads.
"""

from __future__ import annotations

import itertools
import signal
import sys
from collections.abc import Iterator
from typing import NamedTuple

from .._core import INTERRUPT_GRACE
from .events import TERM, Action, Exited, SpawnWorker

# Seconds within which an idle worker must connect to a new front. The start of that front takes a
# part of them.
RECONNECT = 3.0
# Signals that the kernel sends because of a fault of the process itself.
FAULTS = frozenset(
    int(getattr(signal, name)) for name in ("SIGILL", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV") if hasattr(signal, name)
)


def longest_request(worker_timeout: float, scoring_timeout_ms: float) -> float | None:
    """Seconds after which a front asks to kill a worker that has not finished a request; None if it
    never does."""
    limits = [worker_timeout] if worker_timeout else []
    if scoring_timeout_ms:
        limits.append(scoring_timeout_ms / 1000 + INTERRUPT_GRACE)
    return min(limits, default=None)


class Worker:
    """The supervisor's record of one worker. Times are seconds of the monotonic clock."""

    def __init__(self, template: int | None, replaces: int | None, slot: int, follows_large: bool = False) -> None:
        # The template that it was started from, if any.
        self.template = template
        # Its number for --worker_env, from 0. A worker and its successor have the same one.
        self.slot = slot
        # The time at which the front first reported it as ready.
        self.ready_at: float | None = None
        # It was told to answer the jobs that it has, and to exit.
        self.retiring = False
        # The worker that retires when this one is ready.
        self.replaces = replaces
        # The front has asked to replace it. The front asks once for a worker.
        self.recycling = False
        # The front has asked to replace it for its size.
        self.too_large = False
        # The time at which it begins to wait for its replacement, if there is a pause before.
        self.recycle_at: float | None = None
        # The worker that it replaced was too large.
        self.follows_large = follows_large
        # A signal has stopped its process, which does nothing until it is continued.
        self.stopped = False
        # It was sent SIGKILL for a reason that has been logged.
        self.condemned = False
        # The time at which it is killed unless it has ended by then.
        self.kill_at: float | None = None
        # The time at which its front died, until it is connected to another front.
        self.lost_at: float | None = None
        # The time at which it is killed unless it has connected to the new front, or has ended.
        self.back_by: float | None = None

    @property
    def ready(self) -> bool:
        return self.ready_at is not None

    def why_ended(self, event: Exited) -> str:
        """Why another worker must take the place of this one, which has ended unexpectedly."""
        if self.condemned:
            return "timeout"
        if event.is_oom:
            return "oom"
        if self.recycling and event.code in (0, -TERM):
            return "recycle"
        return "signal" if event.code < 0 and -event.code not in FAULTS else "crash"


class _Asked(NamedTuple):
    """A worker that has been asked for: its template, the worker that it replaces, if any, and its
    slot."""

    template: int | None
    replaces: int | None
    slot: int


class KnownWorkers:
    """All workers by pid, and those that have been asked for."""

    def __init__(self, longest_request: float | None, graceful_timeout: float, init_concurrency: int) -> None:
        self.workers: dict[int, Worker] = {}
        self._longest_request = longest_request
        # How many workers may load the script at once; 0 means all.
        self._init_concurrency = init_concurrency
        # Seconds that a worker has for its script's cleanup. The worker itself keeps this limit
        # (``process_exit.py``).
        self._graceful_timeout = graceful_timeout
        # The workers that have been asked for and do not run yet. A template starts its workers in
        # the order in which they were asked for.
        self._asked: list[_Asked] = []

    def ask(self, template: int | None, replaces: int | None = None) -> list[Action]:
        """Ask for a worker. It gets the slot of the worker that it replaces, or the lowest one that
        no other worker has. Workers that retire have given up theirs."""
        replaced = None if replaces is None else self.workers.get(replaces)
        slot = self._free_slot() if replaced is None else replaced.slot
        self._asked.append(_Asked(template, replaces, slot))
        return [SpawnWorker(template, slot)]

    def _free_slot(self) -> int:
        staying = (worker.slot for worker in self.workers.values() if not worker.retiring)
        taken = {*staying, *(asked.slot for asked in self._asked)}
        return next(slot for slot in itertools.count() if slot not in taken)

    @property
    def serving(self) -> int:
        """How many workers take jobs."""
        return sum(worker.ready and not worker.retiring for worker in self.workers.values())

    @property
    def asked(self) -> int:
        """How many workers have been asked for and do not run yet."""
        return len(self._asked)

    def arrived(self, pid: int, template: int | None) -> None:
        """Add the worker that this template, or the supervisor, has started next."""
        asked = self._take(template)
        replaced = None if asked.replaces is None else self.workers.get(asked.replaces)
        follows_large = replaced is not None and replaced.too_large
        self.workers[pid] = Worker(template, asked.replaces, asked.slot, follows_large)

    def refused(self, template: int | None) -> int | None:
        """Drop the worker that this template, or the supervisor, could not start. Returns the
        worker that it was to replace, if any."""
        return self._take(template).replaces

    def _take(self, template: int | None) -> _Asked:
        index = [asked.template for asked in self._asked].index(template)
        return self._asked.pop(index)

    def left(self, pid: int) -> Worker | None:
        """Remove the record of a child that has ended, and return it; None if the child was no
        worker."""
        # A successor that is asked for or starting replaces nobody any more. It counts as an
        # ordinary worker, so that no second one is started for the worker that has gone.
        for worker in self.workers.values():
            if worker.replaces == pid:
                worker.replaces = None
        self._asked = [asked._replace(replaces=None) if asked.replaces == pid else asked for asked in self._asked]
        return self.workers.pop(pid, None)

    def lose_front(self, now: float) -> None:
        """Note that the front has died. Until a worker is connected to another one, no front limits
        the time of its running request."""
        for worker in self.workers.values():
            worker.back_by = None
            if worker.ready and worker.lost_at is None:
                worker.lost_at = now

    def lose(self, pid: int, now: float) -> None:
        """This worker has lost its connection to a front that goes on."""
        worker = self.workers.get(pid)
        if worker is not None and worker.ready and worker.lost_at is None:
            worker.lost_at = now
            self._expect_back(worker, now)

    def expect_back(self, now: float) -> None:
        """Another front has started: set the time by which each worker must have connected to it."""
        for worker in self.workers.values():
            if worker.lost_at is not None:
                self._expect_back(worker, now)

    def _expect_back(self, worker: Worker, now: float) -> None:
        """Set the time by which a worker must have connected again.

        A worker that was busy when it lost its connection may finish its running request first. A
        worker that retires need not connect, but it must end: after its last request it has the
        graceful timeout for that.
        """
        if worker.lost_at is not None and self._longest_request is not None:
            own_end = self._graceful_timeout if worker.retiring else 0.0
            worker.back_by = max(now, worker.lost_at + self._longest_request) + own_end + RECONNECT

    @property
    def loading(self) -> int:
        """How many workers load the script, or have been asked for."""
        return self.asked + sum(not (worker.ready or worker.retiring) for worker in self.workers.values())

    @property
    def limits_loading(self) -> bool:
        """True if not all workers may load the script at once."""
        return self._init_concurrency > 0

    @property
    def room(self) -> int:
        """How many more workers may begin to load the script (--init_concurrency). A worker that was told to exit
        while it loads goes on until it has ended."""
        if not self._init_concurrency:
            return sys.maxsize
        return max(0, self._init_concurrency - self.asked - sum(not worker.ready for worker in self.workers.values()))

    def missing(self, wanted: int) -> int:
        """How many workers must be asked for, so that ``wanted`` are left when all replacements are
        done."""
        staying = sum(not worker.retiring for worker in self.workers.values())
        surplus = sum(worker.replaces is not None and not worker.retiring for worker in self.workers.values())
        return max(0, wanted - (staying - surplus) - sum(asked.replaces is None for asked in self._asked))

    def too_many(self, wanted: int) -> list[int]:
        """The newest workers beyond ``wanted``. A successor and the worker that it replaces count
        as one, and neither is returned, because one of the two will stay."""
        replaced = self.being_replaced()
        own = [pid for pid, worker in self.workers.items() if not worker.retiring and worker.replaces is None]
        return sorted(own, key=lambda pid: pid not in replaced)[wanted:]

    def wakeups(self) -> Iterator[float | None]:
        """The times at which something is planned for a worker."""
        for worker in self.workers.values():
            yield from (worker.kill_at, worker.recycle_at, worker.back_by)

    def being_replaced(self) -> set[int]:
        """Workers whose successor has been asked for or is starting."""
        replaced = [*(asked.replaces for asked in self._asked), *(worker.replaces for worker in self.workers.values())]
        return {pid for pid in replaced if pid is not None}


def is_due(time: float | None, now: float) -> bool:
    """True if something is planned for ``time``, and that time has come."""
    return time is not None and time <= now
