"""A fleet of machines with workers, in virtual time: waiting, losses of a machine, and autoscaling.

Pure: no clock, no socket, and the same seed gives the same outcome. Owns the model; ``plan.py`` owns
the fleets that docs/plan.md compares, and their words.

The model: clients send requests at random moments (Poisson) and do not wait for each other. A proxy
gives each request to a machine: to the one with the fewest requests among ``choices`` machines
drawn at random. A machine has one queue for its workers. A machine that dies answers nothing; what
it has, and what proxies send to it before they notice, is lost. An autoscaler looks at the average
number of requests in the fleet and changes the number of machines.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .queueing import percentile


class Fleet(NamedTuple):
    """Machines, and what lies between them and their clients."""

    machines: int
    # Workers of each machine.
    workers: int
    # Time of run(), and what proxies and server add to it.
    run_ms: float
    added_ms: float = 0.0
    # Machines that the proxy compares for each request: 1 is a random one.
    choices: int = 2
    # Requests that may wait in a machine; more get 503 at once.
    queue: int = 1000
    # Seconds until proxies send nothing more to a machine that has died.
    notice_s: float = 10.0


class Autoscaler(NamedTuple):
    """How the number of machines follows the load."""

    # Requests in a machine, waiting or running, that the autoscaler aims at.
    target: float
    least: int
    most: int
    # Seconds over which it averages, and between two decisions.
    look_back_s: float = 30.0
    period_s: float = 5.0
    # Seconds for which it must want more, or fewer, before it acts.
    up_delay_s: float = 30.0
    down_delay_s: float = 600.0
    # Seconds until a new machine serves.
    start_s: float = 60.0


class Load(NamedTuple):
    """Requests per second from ``at`` seconds on."""

    at: float
    rate: float


class Answer(NamedTuple):
    """One request: when it came, and the seconds until its answer. ``seconds`` is infinite if it was lost, and
    negative if it was refused."""

    at: float
    seconds: float


LOST = math.inf
REFUSED = -1.0


class Outcome(NamedTuple):
    """All requests in the order of arrival, and the number of machines that serve, whenever it changes."""

    answers: list[Answer]
    machines: list[tuple[float, int]]

    def lost(self) -> int:
        return sum(answer.seconds == LOST for answer in self.answers)

    def refused(self) -> int:
        return sum(answer.seconds == REFUSED for answer in self.answers)

    def percentile_ms(self, share: float, since: float = 0.0, until: float = math.inf) -> float:
        """Of the requests that came in this time and were answered."""
        times = [each.seconds for each in self.answers if since <= each.at < until and 0 <= each.seconds < LOST]
        return percentile(times, share) * 1000

    def slow_seconds(self, limit_ms: float) -> int:
        """Seconds in which more than one in a hundred requests took longer than this or had no answer."""
        counts: dict[int, list[int]] = {}
        for each in self.answers:
            count = counts.setdefault(int(each.at), [0, 0])
            count[0] += 1
            count[1] += not 0 <= each.seconds * 1000 <= limit_ms
        return sum(bad > 0.01 * total for total, bad in counts.values())


def arrivals(loads: Sequence[Load], seconds: float, chance: random.Random) -> Iterator[float]:
    """The moments at which requests come."""
    for load, until in zip(loads, [*(later.at for later in loads[1:]), seconds]):
        at = load.at
        while (at := at + chance.expovariate(load.rate)) < until:
            yield at


class _Machine:
    """One queue and its workers. ``ongoing``: when each request here ends, with its number."""

    def __init__(self, workers: int) -> None:
        self.free_at = [0.0] * workers
        self.ongoing: list[tuple[float, int]] = []
        self.is_dead = False

    def requests(self, now: float) -> int:
        """Requests that wait or run. What a dead machine has never ends."""
        while not self.is_dead and self.ongoing and self.ongoing[0][0] <= now:
            heapq.heappop(self.ongoing)
        return len(self.ongoing)

    def accept(self, now: float, number: int, seconds: float) -> float:
        """Take a request, and return when it ends."""
        ends = max(now, heapq.heappop(self.free_at)) + seconds
        heapq.heappush(self.free_at, ends)
        heapq.heappush(self.ongoing, (ends, number))
        return ends


class _Run:
    """One simulation: the machines that get requests, and what has become of the requests."""

    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        self.fleet = fleet
        self.chance = chance
        self.serving = [_Machine(fleet.workers) for _ in range(fleet.machines)]
        self.answers: list[Answer] = []
        self.counts = [(0.0, fleet.machines)]

    def send(self, now: float) -> None:
        """A request comes."""
        drawn = (
            self.serving
            if self.fleet.choices >= len(self.serving)
            else self.chance.sample(self.serving, self.fleet.choices)
        )
        machine = min(drawn, key=lambda each: each.requests(now))
        number = len(self.answers)
        if machine.is_dead:
            heapq.heappush(machine.ongoing, (LOST, number))
            self.answers.append(Answer(now, LOST))
        elif machine.requests(now) >= self.fleet.workers + self.fleet.queue:
            self.answers.append(Answer(now, REFUSED))
        else:
            ends = machine.accept(now, number, self.fleet.run_ms / 1000)
            self.answers.append(Answer(now, ends - now + self.fleet.added_ms / 1000))

    def kill(self, now: float) -> None:
        """The first machine dies with all that it has."""
        machine = self.serving[0]
        machine.requests(now)
        machine.is_dead = True
        for _, number in machine.ongoing:
            self.answers[number] = Answer(self.answers[number].at, LOST)

    def resize(self, now: float, change: int) -> None:
        """Add machines that are ready, or let the last ones finish what they have and go."""
        if change > 0:
            self.serving += [_Machine(self.fleet.workers) for _ in range(change)]
        else:
            del self.serving[len(self.serving) + change :]
        self.counts.append((now, len(self.serving)))

    def bury(self, now: float) -> None:
        """Proxies notice that a machine is dead."""
        self.serving = [machine for machine in self.serving if not machine.is_dead]
        self.counts.append((now, len(self.serving)))

    def requests(self, now: float) -> int:
        return sum(machine.requests(now) for machine in self.serving)


def simulate(
    fleet: Fleet,
    loads: Sequence[Load],
    seconds: float,
    seed: int,
    scaler: Autoscaler | None = None,
    death_at: float | None = None,
) -> Outcome:
    """Run the fleet for this time. ``death_at``: when a machine dies; it is replaced only by an autoscaler."""
    chance = random.Random(seed)
    run = _Run(fleet, chance)
    events: list[tuple[float, str]] = []
    if death_at is not None:
        events += [(death_at, "death"), (death_at + fleet.notice_s, "notice")]
    scaling = None
    if scaler is not None:
        scaling = _Scaling(scaler)
        heapq.heappush(events, (scaler.period_s, "look"))
    heapq.heapify(events)
    for now in arrivals(loads, seconds, chance):
        while events and events[0][0] <= now:
            at, kind = heapq.heappop(events)
            if kind == "death":
                run.kill(at)
            elif kind == "notice":
                run.bury(at)
            elif kind == "ready":
                run.resize(at, 1)
            elif scaling is not None:
                for event in scaling.look(at, run):
                    heapq.heappush(events, event)
        run.send(now)
    return Outcome(run.answers, run.counts)


class _Scaling:
    """What the autoscaler remembers."""

    def __init__(self, scaler: Autoscaler) -> None:
        self.scaler = scaler
        self.seen: deque[tuple[float, int]] = deque()
        self.starts: deque[float] = deque()
        self.wants_more_since: float | None = None
        self.wants_fewer_since: float | None = None

    def look(self, now: float, run: _Run) -> Iterator[tuple[float, str]]:
        """One decision. Yields the events that follow from it."""
        scaler = self.scaler
        yield now + scaler.period_s, "look"
        self.seen.append((now, run.requests(now)))
        while self.seen[0][0] <= now - scaler.look_back_s:
            self.seen.popleft()
        # One that is ready at this very moment is counted here, because it serves after this decision.
        while self.starts and self.starts[0] < now:
            self.starts.popleft()
        average = sum(count for _, count in self.seen) / len(self.seen)
        wanted = min(max(math.ceil(average / scaler.target), scaler.least), scaler.most)
        have = len(run.serving) + len(self.starts)
        self.wants_more_since = _since(self.wants_more_since, wanted > have, now)
        self.wants_fewer_since = _since(self.wants_fewer_since, wanted < have, now)
        if self.wants_more_since is not None and now - self.wants_more_since >= scaler.up_delay_s:
            for _ in range(wanted - have):
                self.starts.append(now + scaler.start_s)
                yield now + scaler.start_s, "ready"
            self.wants_more_since = None
        elif self.wants_fewer_since is not None and now - self.wants_fewer_since >= scaler.down_delay_s:
            run.resize(now, wanted - have)
            self.wants_fewer_since = None


def _since(before: float | None, is_so: bool, now: float) -> float | None:
    """Since when something has been so without a pause."""
    if not is_so:
        return None
    return now if before is None else before
