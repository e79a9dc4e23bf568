"""The workers that there are and those that have been asked for, and which of them replaces which.

Bookkeeping for the decisions in ``supervisor.py``, and by when a worker has to connect to a new front. Nothing here
touches the operating system. Used in the supervisor process, and in the server with worker threads.
"""

from __future__ import annotations

from collections.abc import Iterator

from ._core import INTERRUPT_GRACE
from .events import Action, SpawnWorker

# Seconds that a worker which is free has for connecting to a new front, that front's start included.
RECONNECT = 3.0


def longest_request(worker_timeout: float, scoring_timeout_ms: float) -> float | None:
    """Seconds after which a front takes a worker for stuck that has not finished a request; None: never."""
    limits = [worker_timeout] if worker_timeout else []
    if scoring_timeout_ms:
        limits.append(scoring_timeout_ms / 1000 + INTERRUPT_GRACE)
    return min(limits, default=None)


class Worker:
    """What is known about one worker."""

    def __init__(self, template: int | None, replaces: int | None, follows_large: bool = False) -> None:
        # The template that it was started from, if any.
        self.template = template
        # When the front said so for the first time.
        self.ready_at: float | None = None
        self.retiring = False
        # The worker that is let go once this one is ready.
        self.replaces = replaces
        # What the front asked for, once; when its turn comes, if that is later.
        self.recycling = False
        self.too_large = False
        self.recycle_at: float | None = None
        # The one before it was replaced because it was too large.
        self.follows_large = follows_large
        # Its process does nothing until it is continued.
        self.stopped = False
        # It has been killed for a reason that the log has.
        self.condemned = False
        # When it is killed if it has not ended by then.
        self.kill_at: float | None = None
        # Since when it has had no front, while that is so, and when it is taken for stuck if it has neither connected
        # to another front nor ended by then.
        self.lost_at: float | None = None
        self.back_by: float | None = None

    @property
    def ready(self) -> bool:
        return self.ready_at is not None


class Roster:
    """All workers by pid, and those that have been asked for."""

    def __init__(self, longest_request: float | None, graceful_timeout: float) -> None:
        self.workers: dict[int, Worker] = {}
        self._longest_request = longest_request
        # Seconds that a worker has for what its script does at its end. It keeps to them itself (``ending.py``).
        self._graceful_timeout = graceful_timeout
        # Each with its template and the worker that it replaces, if any. One template starts them in this order.
        self._asked: list[tuple[int | None, int | None]] = []

    def ask(self, template: int | None, replaces: int | None = None) -> list[Action]:
        """Ask for a worker."""
        self._asked.append((template, replaces))
        return [SpawnWorker(template)]

    def arrived(self, pid: int, template: int | None) -> None:
        """The next worker of this template has been started."""
        replaces = self._take(template)
        follows_large = replaces in self.workers and self.workers[replaces].too_large
        self.workers[pid] = Worker(template, replaces, follows_large)

    def refused(self, template: int | None) -> int | None:
        """The next worker of this template could not be started. Returns the worker that it was to replace."""
        return self._take(template)

    def _take(self, template: int | None) -> int | None:
        index = [asked_from for asked_from, _ in self._asked].index(template)
        return self._asked.pop(index)[1]

    def left(self, pid: int) -> Worker | None:
        """A process has ended. Returns what was known about it; None if it was no worker."""
        # One that is gone needs no second successor: the one that is coming is an ordinary worker.
        for worker in self.workers.values():
            if worker.replaces == pid:
                worker.replaces = None
        self._asked = [(template, None if replaced == pid else replaced) for template, replaced in self._asked]
        return self.workers.pop(pid, None)

    def lose_front(self, now: float) -> None:
        """The front has died. From now on no front ends a request that takes too long."""
        for worker in self.workers.values():
            worker.back_by = None
            if worker.ready and worker.lost_at is None:
                worker.lost_at = now

    def expect_back(self, now: float) -> None:
        """Another front is there. A worker that was busy when the last one died may finish that first. A worker that
        retires need not connect, but it has to end: after its last request it has the graceful timeout for that."""
        if self._longest_request is None:
            return
        for worker in self.workers.values():
            if worker.lost_at is not None:
                own_end = self._graceful_timeout if worker.retiring else 0.0
                worker.back_by = max(now, worker.lost_at + self._longest_request) + own_end + RECONNECT

    def missing(self, wanted: int) -> int:
        """How many have to be asked for so that ``wanted`` stay when all replacing is done."""
        staying = sum(not worker.retiring for worker in self.workers.values())
        surplus = sum(worker.replaces is not None and not worker.retiring for worker in self.workers.values())
        return max(0, wanted - (staying - surplus) - sum(replaced is None for _, replaced in self._asked))

    def too_many(self, wanted: int) -> list[int]:
        """The newest workers beyond ``wanted``. A successor and the worker that it replaces count as one, and neither
        of them is among these: one of the two will stay."""
        replaced = self.being_replaced()
        own = [pid for pid, worker in self.workers.items() if not worker.retiring and worker.replaces is None]
        return sorted(own, key=lambda pid: pid not in replaced)[wanted:]

    def wakeups(self) -> Iterator[float | None]:
        """When something is due for a worker."""
        for worker in self.workers.values():
            yield from (worker.kill_at, worker.recycle_at, worker.back_by)

    def being_replaced(self) -> set[int]:
        """Workers whose successor is asked for or starting."""
        replaced = [*(replaced for _, replaced in self._asked), *(worker.replaces for worker in self.workers.values())]
        return {pid for pid in replaced if pid is not None}


def is_due(time: float | None, now: float) -> bool:
    """Whether something that is planned, if it is, has to happen now."""
    return time is not None and time <= now
