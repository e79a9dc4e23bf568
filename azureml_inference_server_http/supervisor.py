"""What the supervisor decides: which process to start, signal or give up on, and when.

A plain state machine: ``Supervisor.handle(event, now)`` returns the actions to take and touches nothing outside itself,
so that every rule can be tested without a fork. ``process.py`` turns the world into events and performs the actions.
Runs in the supervisor process, which has one thread for ever and so may fork at any time.

Rules: DESIGN "Processes" and its decided behaviour; contract section 16 for signals and exit codes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable

from .events import (
    Action,
    Event,
    Exited,
    Finish,
    Kill,
    KillWanted,
    Log,
    PreloadFailed,
    Ready,
    RecycleWanted,
    Signalled,
    Spawned,
    SpawnFailed,
    SpawnFront,
    SpawnWorker,
    Started,
    TellFront,
)

EXIT_OK = 0
EXIT_FRONT_FAILED = 1
EXIT_CANNOT_START = 3
# A worker that ends with one of these before it was ready says: do not try again.
FATAL_EXIT_CODES = (3, 4)
# So many workers in a row died before one was ready: the command gives up.
MAX_EARLY_DEATHS = 5
# Seconds before the first, second, … new attempt after early deaths.
BACK_OFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# Seconds before a fork that failed is tried again.
SPAWN_AGAIN = 1.0
# Seconds between a worker's TERM and its KILL once nobody waits for its answer.
KILL_AFTER = 0.5
# Seconds that the front gets beyond its own time-outs before it is taken for stuck.
FRONT_GRACE = 2.0


class Worker:
    """What is known about one worker process."""

    def __init__(self, replaces: int | None) -> None:
        self.ready = False
        self.retiring = False
        # The worker that is let go once this one is ready (HUP).
        self.replaces = replaces


def describe_exit(code: int) -> str:
    """How a process ended, as a verb phrase for messages to clients and logs."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = f" ({signal.Signals(-code).name})"
    except ValueError:
        name = ""
    return f"was killed by signal {-code}{name}"


class Supervisor:
    """State of all children, and the rules."""

    def __init__(self, worker_count: int, graceful_timeout: float) -> None:
        self.worker_count = worker_count
        self.graceful_timeout = graceful_timeout
        self.front: int | None = None
        self.workers: dict[int, Worker] = {}
        self.exit_code = EXIT_OK
        # "serving", then "draining" (TERM) or at once "stopping".
        self.phase = "serving"
        self._early_deaths = 0
        self._front_deaths = 0
        self._last_exit = ""
        # Old workers that HUP still has to replace, one after the other.
        self._to_replace: list[int] = []
        # Worker forks asked for, each with the worker it replaces; consumed by Spawned.
        self._asked: list[int | None] = []
        self._spawn_front_at: float | None = None
        self._spawn_workers_at: float | None = None
        self._kill_front_at: float | None = None
        self._kill_workers_at: float | None = None
        self._finished = False

    # ---- Entry points

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take note of ``event`` at the time ``now`` (seconds, monotonic) and say what to do."""
        if isinstance(event, Started):
            actions: list[Action] = [SpawnFront(), *self._fill_up()]
        elif isinstance(event, Spawned):
            actions = self._spawned(event)
        elif isinstance(event, SpawnFailed):
            actions = self._spawn_failed(event, now)
        elif isinstance(event, Exited):
            actions = self._exited(event, now)
        elif isinstance(event, Ready):
            actions = self._ready(event.pid)
        elif isinstance(event, KillWanted):
            actions = self._kill_wanted(event)
        elif isinstance(event, RecycleWanted):
            actions = self._recycle_wanted(event)
        elif isinstance(event, PreloadFailed):
            actions = self._stop(EXIT_CANNOT_START, now)
        elif isinstance(event, Signalled):
            actions = self._signalled(event.number, now)
        else:
            actions = self._tick(now)
        return [*actions, *self._finish_if_done()]

    def next_wakeup(self) -> float | None:
        """When a Tick is due, or None."""
        times = (self._spawn_front_at, self._spawn_workers_at, self._kill_front_at, self._kill_workers_at)
        return min((time for time in times if time is not None), default=None)

    # ---- Children

    def _fill_up(self) -> list[Action]:
        """Ask for as many workers as are missing."""
        staying = sum(not worker.retiring for worker in self.workers.values())
        surplus = sum(worker.replaces is not None for worker in self.workers.values())
        missing = self.worker_count - (staying - surplus) - self._asked.count(None)
        self._asked += [None] * max(0, missing)
        return [SpawnWorker()] * max(0, missing)

    def _spawned(self, event: Spawned) -> list[Action]:
        if event.is_front:
            self.front = event.pid
        else:
            self.workers[event.pid] = Worker(self._asked.pop(0))
        if self.phase == "stopping":
            return [Kill(event.pid, signal.SIGKILL)]
        return []

    def _spawn_failed(self, event: SpawnFailed, now: float) -> list[Action]:
        """Try again in a while: what serves goes on serving."""
        if event.is_front:
            self._spawn_front_at = now + SPAWN_AGAIN
        else:
            self._asked.pop(0)
            self._spawn_workers_at = now + SPAWN_AGAIN
        what = "the front process" if event.is_front else "a worker"
        return [Log("error", f"Cannot start {what}: {event.reason}. Trying again.")]

    def _exited(self, event: Exited, now: float) -> list[Action]:
        if event.pid == self.front:
            return self._front_exited(event, now)
        worker = self.workers.pop(event.pid, None)
        if worker is None:
            return []
        how = describe_exit(event.code)
        actions: list[Action] = []
        if self.front is not None:
            actions.append(TellFront(f"exited {event.pid} {how}"))
        self._to_replace = [pid for pid in self._to_replace if pid != event.pid]
        self._forget_replaced(event.pid)
        expected = worker.retiring and event.code in (0, -signal.SIGTERM)
        if self.phase == "stopping" or expected:
            return [*actions, *self._replace_next()]
        level = "info" if event.code == 0 else "error"
        hint = " Perhaps it ran out of memory." if event.code == -signal.SIGKILL else ""
        actions.append(Log(level, f"Worker (pid:{event.pid}) {how}.{hint}"))
        if worker.ready:
            return [*actions, *self._fill_up(), *self._replace_next()]
        return actions + self._early_death(event, worker, how, now)

    def _forget_replaced(self, pid: int) -> None:
        """A worker that is gone needs no second successor: the one that is coming is an ordinary worker."""
        for worker in self.workers.values():
            if worker.replaces == pid:
                worker.replaces = None
        self._asked = [None if replaced == pid else replaced for replaced in self._asked]

    def _early_death(self, event: Exited, worker: Worker, how: str, now: float) -> list[Action]:
        """A worker died before it was ready."""
        if worker.replaces is not None:
            self._to_replace.clear()
            return [Log("error", "The replacement could not start. The workers that serve now stay.")]
        if event.code in FATAL_EXIT_CODES:
            text = "The scoring script could not be started, see above."
            return [Log("error", text), *self._stop(event.code, now)]
        self._early_deaths += 1
        anyone_ready = any(other.ready for other in self.workers.values())
        if self._early_deaths >= MAX_EARLY_DEATHS and not anyone_ready:
            text = f"{self._early_deaths} workers in a row died before they were ready, the last one {how}. Giving up."
            return [Log("critical", text), *self._stop(EXIT_CANNOT_START, now)]
        pause = BACK_OFF[min(self._early_deaths, len(BACK_OFF)) - 1]
        if self._spawn_workers_at is None:
            self._spawn_workers_at = now + pause
        return []

    def _front_exited(self, event: Exited, now: float) -> list[Action]:
        self.front = None
        self._kill_front_at = None
        if self.phase != "serving":
            return self._stop(self.exit_code, now)
        # Nobody's request survives a front, but the listeners do: connections wait in their backlog meanwhile.
        pause = 0.0 if self._front_deaths == 0 else BACK_OFF[min(self._front_deaths, len(BACK_OFF)) - 1]
        self._front_deaths += 1
        if self._front_deaths > MAX_EARLY_DEATHS:
            how = describe_exit(event.code)
            text = f"{self._front_deaths} front processes in a row died, the last one {how}. Giving up."
            return [Log("critical", text), *self._stop(EXIT_FRONT_FAILED, now)]
        self._spawn_front_at = now + pause
        how = describe_exit(event.code)
        return [Log("error", f"The front process (pid:{event.pid}) {how}. Starting another one.")]

    def _ready(self, pid: int) -> list[Action]:
        worker = self.workers.get(pid)
        if worker is None:
            return []
        if worker.retiring:
            # It was told so by a front that has died since.
            return [TellFront(f"retire {pid}")]
        worker.ready = True
        self._early_deaths = 0
        self._front_deaths = 0
        old, worker.replaces = worker.replaces, None
        if old is None:
            return []
        return [*self._retire([old]), *self._replace_next()]

    def _retire(self, pids: Iterable[int]) -> list[Action]:
        """Let workers go when they have answered what they have."""
        actions: list[Action] = []
        for pid in pids:
            worker = self.workers.get(pid)
            if worker is None or worker.retiring:
                continue
            worker.retiring = True
            # One that is not connected yet has nothing to finish.
            actions.append(TellFront(f"retire {pid}") if worker.ready else Kill(pid, signal.SIGTERM))
        return actions

    def _kill_wanted(self, event: KillWanted) -> list[Action]:
        if event.pid not in self.workers:
            return []
        text = f"Worker (pid:{event.pid}) {event.reason}. It is killed and replaced."
        return [Log("critical", text), Kill(event.pid, signal.SIGKILL)]

    def _recycle_wanted(self, event: RecycleWanted) -> list[Action]:
        worker = self.workers.get(event.pid)
        if self.phase != "serving" or worker is None or worker.retiring:
            return []
        successors = [*self._asked, *(other.replaces for other in self.workers.values())]
        if event.pid in (*self._to_replace, *successors):
            return []
        self._to_replace.append(event.pid)
        return [Log("info", f"Worker (pid:{event.pid}) {event.reason}. It is replaced."), *self._replace_next()]

    # ---- Signals

    def _signalled(self, number: int, now: float) -> list[Action]:
        if number == signal.SIGTERM:
            return self._drain(now)
        if number in (signal.SIGINT, signal.SIGQUIT):
            return self._stop(EXIT_OK, now)
        if self.phase != "serving":
            return []
        if number == signal.SIGHUP:
            # Neither those whose successor is being started already, nor the successors: they are new enough.
            replaced = {*self._asked, *(worker.replaces for worker in self.workers.values())}
            old = [pid for pid, worker in self.workers.items() if not worker.retiring and worker.replaces is None]
            self._to_replace = [pid for pid in old if pid not in replaced]
            return [Log("info", "Replacing the workers one by one."), *self._replace_next()]
        if number == signal.SIGTTIN:
            self.worker_count += 1
            return self._fill_up()
        if number == signal.SIGTTOU and self.worker_count > 1:
            self.worker_count -= 1
            staying = [pid for pid, worker in self.workers.items() if not worker.retiring]
            return self._retire(staying[self.worker_count :])
        return []

    def _replace_next(self) -> list[Action]:
        """Start the successor of the next old worker, if none is being started."""
        busy = any(worker.replaces is not None for worker in self.workers.values())
        if not self._to_replace or busy or self.phase != "serving" or any(self._asked):
            return []
        self._asked.append(self._to_replace.pop(0))
        return [SpawnWorker()]

    # ---- The end

    def _drain(self, now: float) -> list[Action]:
        if self.phase != "serving":
            return []
        self.phase = "draining"
        self._to_replace.clear()
        self._spawn_front_at = None
        if self.front is None:
            return self._stop(EXIT_OK, now)
        self._kill_front_at = now + self.graceful_timeout + FRONT_GRACE
        return [Log("info", "Stopping: finishing the requests that are queued or running."), TellFront("drain")]

    def _stop(self, code: int, now: float) -> list[Action]:
        """End everything now: the front answers who waits, the workers get a moment for their clean-up."""
        if self.phase == "stopping":
            return []
        self.phase = "stopping"
        self.exit_code = code
        self._to_replace.clear()
        self._spawn_front_at = self._spawn_workers_at = None
        self._kill_workers_at = now + KILL_AFTER
        actions: list[Action] = []
        if self.front is not None:
            self._kill_front_at = now + FRONT_GRACE
            actions.append(TellFront("stop"))
        return actions + [Kill(pid, signal.SIGTERM) for pid in self.workers]

    def _tick(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if _is_due(self._spawn_front_at, now):
            self._spawn_front_at = None
            actions.append(SpawnFront())
        if _is_due(self._spawn_workers_at, now):
            self._spawn_workers_at = None
            actions += self._fill_up()
        if _is_due(self._kill_front_at, now):
            self._kill_front_at = None
            if self.front is not None:
                actions += [Log("error", "The front did not end in time."), Kill(self.front, signal.SIGKILL)]
        if _is_due(self._kill_workers_at, now):
            self._kill_workers_at = None
            actions += [Kill(pid, signal.SIGKILL) for pid in self.workers]
        return actions

    def _finish_if_done(self) -> list[Action]:
        if self.phase != "stopping" or self.front is not None or self.workers or self._finished:
            return []
        self._finished = True
        return [Finish(self.exit_code)]


def _is_due(time: float | None, now: float) -> bool:
    return time is not None and time <= now
