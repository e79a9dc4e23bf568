"""What the supervisor decides: which process to start, signal or give up on, and when.

A plain state machine: ``Supervisor.handle(event, now)`` returns the actions to take and touches nothing outside itself,
so that every rule can be tested without a fork. ``process.py`` turns the world into events and performs the actions.
Runs in the supervisor process, which has one thread for ever and so may fork at any time.

Rules: docs/design.md, "Processes", "Stop" and "When something fails"; contract section 16 for signals and exit codes.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Iterable
from typing import Callable

from . import terminal
from .back_off import BACK_OFF, CRASH_BACK_OFF, MAX_EARLY_DEATHS, STEADY, Fronts, Series
from .events import (
    Action,
    Continued,
    Event,
    Exited,
    Finish,
    HungUp,
    Kill,
    KillWanted,
    Log,
    PreloadFailed,
    Ready,
    RecycleWanted,
    Released,
    Signalled,
    Spawned,
    SpawnFailed,
    SpawnFront,
    SpawnWorker,
    Started,
    Stopped,
    TellFront,
)
from .replacing import Replacing
from .roster import RECONNECT, Roster, Worker, describe_exit, describe_signal, is_due

EXIT_OK = 0
EXIT_FRONT_FAILED = 1
EXIT_CANNOT_START = 3
# A worker that ends with one of these before it was ready says: do not try again.
FATAL_EXIT_CODES = (3, 4)
# Seconds before a fork that failed is tried again.
SPAWN_AGAIN = 1.0
# Seconds that a worker has for its end when the server stops at once, or when the graceful timeout is over. After that
# it is killed.
KILL_AFTER = 0.5
# The same for one that is told to hurry, and has to say what its script leaves undone.
LAST_WORDS = 1.5
# Seconds that the front gets beyond its own time-outs before it is taken for stuck.
FRONT_GRACE = 2.0
# Of a worker that was busy when the last front died. No front can judge it, as it is connected to none.
NOT_BACK = "did not connect to the new front within the time for a request (WORKER_TIMEOUT, SCORING_TIMEOUT_MS)"


class Phase(enum.Enum):
    """How far the command is on its way to its end."""

    SERVING = enum.auto()
    # TERM: the front finishes the requests that are queued or running.
    DRAINING = enum.auto()
    # The requests are answered, and the front goes. Workers do what their scripts have to do at their end.
    CLEANING_UP = enum.auto()
    # INT, QUIT, a failure, or the graceful timeout is over: every process that is left is killed in a moment.
    STOPPING = enum.auto()


class Supervisor:
    """State of all children, and the rules."""

    def __init__(
        self,
        worker_count: int,
        graceful_timeout: float,
        preloaded: bool = False,
        longest_request: float | None = None,
        is_debugged: Callable[[int], bool] = lambda pid: False,
    ) -> None:
        self.worker_count = worker_count
        self.graceful_timeout = graceful_timeout
        # Whether a debugger holds this process. Asked before a worker is killed for a limit.
        self._is_debugged = is_debugged
        self.front: int | None = None
        self._roster = Roster(longest_request)
        self.workers = self._roster.workers
        self.exit_code = EXIT_OK
        self.phase = Phase.SERVING
        # Of workers before they were ready, and soon after.
        self._early_deaths = Series(*BACK_OFF)
        self._quick_deaths = Series(0.0, *CRASH_BACK_OFF)
        self._fronts = Fronts()
        self._replacing = Replacing(self._roster, preloaded)
        self._spawn_front_at: float | None = None
        self._spawn_workers_at: float | None = None
        self._kill_front_at: float | None = None
        # Why the system refuses another process since the last one was started, by whether it is a front: logged once.
        self._refusals: dict[bool, str] = {}
        # When the graceful timeout is over.
        self._graceful_until = 0.0
        self._finished = False

    # ---- Entry points

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take note of ``event`` at the time ``now`` (seconds, monotonic) and say what to do."""
        if isinstance(event, Started):
            actions: list[Action] = [SpawnFront(), *self._fill_up()]
        elif isinstance(event, Spawned):
            actions = self._spawned(event, now)
        elif isinstance(event, SpawnFailed):
            actions = self._spawn_failed(event, now)
        elif isinstance(event, Exited):
            actions = self._exited(event, now)
        elif isinstance(event, (Stopped, Continued)):
            actions = self._stopped_or_continued(event)
        elif isinstance(event, Ready):
            actions = self._ready(event.pid, now)
        elif isinstance(event, KillWanted):
            actions = self._kill_wanted(event.pid, event.reason)
        elif isinstance(event, RecycleWanted):
            actions = self._replacing.recycle(event)
        elif isinstance(event, Released):
            actions = self._clean_up(now) if self.phase is Phase.DRAINING else []
        elif isinstance(event, PreloadFailed):
            actions = self._stop(EXIT_CANNOT_START, now)
        elif isinstance(event, Signalled):
            actions = self._signalled(event.number, now)
        elif isinstance(event, HungUp):
            actions = self._hung_up(event, now)
        else:
            actions = self._tick(now)
        return [*actions, *self._replacing.tell_when_done(), *self._finish_if_done()]

    @property
    def starts_nothing(self) -> bool:
        """The end has come so far that no process is started any more."""
        return self.phase in (Phase.CLEANING_UP, Phase.STOPPING)

    def time_to_clean_up(self, now: float) -> float | None:
        """Seconds that are left for what scripts do at their end; None if the server stops at once."""
        return max(0.0, self._graceful_until - now) if self.phase is Phase.CLEANING_UP else None

    def next_wakeup(self) -> float | None:
        """When a Tick is due, or None."""
        hurry_at = self._graceful_until if self.phase is Phase.CLEANING_UP else None
        own = [self._spawn_front_at, self._spawn_workers_at, self._kill_front_at, hurry_at]
        times = [*own, *self._roster.wakeups()]
        return min((time for time in times if time is not None), default=None)

    # ---- Children

    def _fill_up(self) -> list[Action]:
        """Ask for as many workers as are missing."""
        missing = self._roster.missing(self.worker_count)
        for _ in range(missing):
            self._roster.ask()
        return [SpawnWorker()] * missing

    def _spawned(self, event: Spawned, now: float) -> list[Action]:
        self._refusals.pop(event.is_front, None)
        if event.is_front:
            self.front = event.pid
            self._fronts.begin(now)
            self._roster.expect_back(now)
        else:
            self._roster.arrived(event.pid)
        if self.starts_nothing:
            return [Kill(event.pid, signal.SIGKILL)]
        return []

    def _spawn_failed(self, event: SpawnFailed, now: float) -> list[Action]:
        """Try again in a while: what serves goes on serving. ``event.reason`` is a sentence."""
        if event.is_front:
            self._spawn_front_at = now + SPAWN_AGAIN
        else:
            replaced = self._roster.refused()
            if replaced is not None:
                self._replacing.wait_again(replaced)
            self._spawn_workers_at = now + SPAWN_AGAIN
        if self._refusals.get(event.is_front) == event.reason:
            return []
        self._refusals[event.is_front] = event.reason
        what = "the front process" if event.is_front else "a worker"
        return [Log("error", f"Cannot start {what}: {event.reason} Trying again every second.")]

    def _exited(self, event: Exited, now: float) -> list[Action]:
        if event.pid == self.front:
            return self._front_exited(event, now)
        worker = self._roster.left(event.pid)
        if worker is None:
            return []
        how = describe_exit(event.code)
        actions = self._tell_front(f"exited {event.pid} {how}")
        self._replacing.forget(event.pid)
        expected = event.code in (0, -signal.SIGTERM) or not worker.ready
        if self.starts_nothing or (worker.retiring and expected):
            return [*actions, *self._replacing.next()]
        if not (worker.condemned and event.code == -signal.SIGKILL):
            level = "info" if event.code == 0 else "error"
            hint = " Perhaps it ran out of memory." if event.code == -signal.SIGKILL else ""
            actions.append(Log(level, f"Worker (pid:{event.pid}) {how}.{hint}"))
        if worker.ready_at is None:
            return actions + self._early_death(event, worker, how, now)
        if not worker.retiring:
            actions += self._fill_up_after_crash(now - worker.ready_at, now)
        return [*actions, *self._replacing.next()]

    def _stopped_or_continued(self, event: Stopped | Continued) -> list[Action]:
        """Job control. The front gives its requests to others, and has it killed after as long as one may take."""
        worker = self.workers.get(event.pid)
        if worker is None:
            return []
        worker.stopped = isinstance(event, Stopped)
        if isinstance(event, Stopped):
            how = f"was stopped by {describe_signal(event.number)}. It gets no requests until it is continued"
            return [Log("warning", f"Worker (pid:{event.pid}) {how}."), *self._tell_front(f"stopped {event.pid}")]
        return [Log("info", f"Worker (pid:{event.pid}) was continued."), *self._tell_front(f"continued {event.pid}")]

    def _tell_front(self, line: str) -> list[Action]:
        return [] if self.front is None else [TellFront(line)]

    def _fill_up_after_crash(self, served: float, now: float) -> list[Action]:
        """Replace a worker that served for so many seconds: at once, as the request that it was running is what most
        likely killed it, unless workers keep dying young. However often they do, those that live go on serving."""
        if served >= STEADY:
            self._quick_deaths.end()
            return self._fill_up()
        pause = self._quick_deaths.add()
        if not pause:
            return self._fill_up()
        if self._spawn_workers_at is None:
            self._spawn_workers_at = now + pause
        text = f"{self._quick_deaths.count} workers in a row died within {STEADY:g} s of being ready."
        return [Log("warning", f"{text} The next one is started in {pause:g} s.")]

    def _early_death(self, event: Exited, worker: Worker, how: str, now: float) -> list[Action]:
        """A worker died before it was ready."""
        if worker.replaces is not None:
            return self._replacing.failed(f"The new worker (pid:{event.pid}) {how}", now)
        serving = any(other.ready and not other.retiring for other in self.workers.values())
        if event.code in FATAL_EXIT_CODES and not serving:
            text = "The scoring script could not be started, see above."
            return [Log("error", text), *self._stop(event.code, now)]
        pause = self._early_deaths.add()
        count = self._early_deaths.count
        if count >= MAX_EARLY_DEATHS and not serving:
            text = f"{count} workers in a row died before they were ready, the last one {how}. Giving up."
            return [Log("critical", text), *self._stop(EXIT_CANNOT_START, now)]
        if self._spawn_workers_at is None:
            self._spawn_workers_at = now + pause
        return []

    def _front_exited(self, event: Exited, now: float) -> list[Action]:
        self.front = None
        self._kill_front_at = None
        if self.phase is Phase.DRAINING:
            return self._clean_up(now)
        if self.starts_nothing:
            return []
        # Nobody's request survives a front, but the listeners do: connections wait in their backlog meanwhile.
        self._roster.lose_front(now)
        pause = self._fronts.end(now)
        how = describe_exit(event.code)
        if self._fronts.useless > MAX_EARLY_DEATHS:
            text = f"{self._fronts.useless} front processes in a row died, the last one {how}. Giving up."
            return [Log("critical", text), *self._stop(EXIT_FRONT_FAILED, now)]
        self._spawn_front_at = now + pause
        return [Log("error", f"The front process (pid:{event.pid}) {how}. Starting another one.")]

    def _ready(self, pid: int, now: float) -> list[Action]:
        worker = self.workers.get(pid)
        if worker is None:
            return []
        worker.lost_at = worker.back_by = None
        # What was told before the worker connected to this front, or to the last one, is told again.
        actions: list[Action] = [TellFront(f"stopped {pid}")] if worker.stopped else []
        if worker.retiring:
            return [*actions, TellFront(f"retire {pid}")]
        if worker.ready_at is None:
            worker.ready_at = now
        self._early_deaths.end()
        self._fronts.useless = 0
        old, worker.replaces = worker.replaces, None
        if old is None:
            return actions
        return [*actions, *self._retire([old], now), *self._replacing.next()]

    def _retire(self, pids: Iterable[int], now: float) -> list[Action]:
        """Let workers go when they have answered what they have. They limit the time for their exit themselves
        (``worker.py``), as only they know when the last answer has been given."""
        actions: list[Action] = []
        for pid in pids:
            worker = self.workers.get(pid)
            if worker is None or worker.retiring:
                continue
            worker.retiring = True
            worker.recycle_at = None
            if worker.ready:
                actions.append(TellFront(f"retire {pid}"))
            else:
                # It has nothing to finish; its init() may take any time.
                worker.kill_at = now + KILL_AFTER
                actions.append(Kill(pid, signal.SIGTERM))
        return actions

    def _kill_wanted(self, pid: int, reason: str) -> list[Action]:
        if pid not in self.workers:
            return []
        self.workers[pid].condemned = True
        text = f"Worker (pid:{pid}) {reason}. It is killed and replaced."
        return [Log("critical", text), Kill(pid, signal.SIGKILL)]

    # ---- Signals

    def _signalled(self, number: int, now: float) -> list[Action]:
        if number == signal.SIGTERM:
            return self._drain(now)
        if number in (signal.SIGINT, signal.SIGQUIT):
            return self._stop(EXIT_OK, now)
        if self.phase is not Phase.SERVING:
            return []
        if number == signal.SIGHUP:
            return self._replacing.reload()
        if number == signal.SIGTTIN:
            self.worker_count += 1
            return self._fill_up()
        if number == signal.SIGTTOU and self.worker_count > 1:
            self.worker_count -= 1
            staying = [pid for pid, worker in self.workers.items() if not worker.retiring]
            return self._retire(staying[self.worker_count :], now)
        return []

    def _hung_up(self, event: HungUp, now: float) -> list[Action]:
        """Nobody sits at the terminal any more, but clients may wait: like TERM."""
        if event.is_ignored or self.phase is not Phase.SERVING:
            return []
        return [Log("warning", terminal.GONE), *self._drain(now)]

    # ---- The end

    def _drain(self, now: float) -> list[Action]:
        if self.phase is not Phase.SERVING:
            return []
        self.phase = Phase.DRAINING
        self._replacing.end()
        self._spawn_front_at = None
        self._graceful_until = now + self.graceful_timeout
        if self.front is None:
            return self._clean_up(now)
        self._kill_front_at = self._graceful_until + FRONT_GRACE
        return [Log("info", "Stopping: finishing the requests that are queued or running."), TellFront("drain")]

    def _clean_up(self, now: float) -> list[Action]:
        """Nobody waits for an answer any more. What is left of the graceful timeout is for the end of the scripts."""
        self.phase = Phase.CLEANING_UP
        self._spawn_workers_at = None
        self._graceful_until = max(self._graceful_until, now + KILL_AFTER)
        for worker in self.workers.values():
            worker.back_by = None
            if not worker.ready:
                # There is nothing to clean up; init() may take any time.
                worker.kill_at = now + KILL_AFTER
        return [Kill(pid, signal.SIGTERM) for pid in self.workers]

    def _hurry(self, now: float) -> list[Action]:
        """The graceful timeout is over: let the workers say what is left undone, and end."""
        pids = ", ".join(str(pid) for pid in self.workers)
        text = f"Not ended within --graceful_timeout {self.graceful_timeout:g}: workers {pids}. They are stopped."
        return [Log("warning", text), *self._stop(self.exit_code, now, LAST_WORDS)]

    def _stop(self, code: int, now: float, patience: float = KILL_AFTER) -> list[Action]:
        """End everything now: the front answers who waits, the workers are killed after a moment. SIGQUIT tells them
        that; the first signal, so that none is told to go by the front before."""
        if self.phase is Phase.STOPPING:
            return []
        self.phase = Phase.STOPPING
        self.exit_code = code
        self._replacing.end()
        self._spawn_front_at = self._spawn_workers_at = None
        for worker in self.workers.values():
            worker.kill_at = now + patience
            worker.back_by = None
        actions: list[Action] = [Kill(pid, signal.SIGQUIT) for pid in self.workers]
        if self.front is not None:
            self._kill_front_at = now + FRONT_GRACE
            actions.append(TellFront("stop"))
        return actions

    def _tick(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if is_due(self._spawn_front_at, now):
            self._spawn_front_at = None
            actions.append(SpawnFront())
        if is_due(self._spawn_workers_at, now):
            self._spawn_workers_at = None
            actions += [*self._fill_up(), *self._replacing.next()]
        if is_due(self._kill_front_at, now):
            self._kill_front_at = None
            if self.front is not None:
                actions += [Log("error", "The front did not end in time."), Kill(self.front, signal.SIGKILL)]
        if self.phase is Phase.CLEANING_UP and self.workers and now >= self._graceful_until:
            actions += self._hurry(now)
        for pid, worker in self.workers.items():
            if is_due(worker.kill_at, now):
                worker.kill_at = None
                actions.append(Kill(pid, signal.SIGKILL))
            if is_due(worker.back_by, now) and self._is_debugged(pid):
                worker.back_by = now + RECONNECT
            elif is_due(worker.back_by, now):
                worker.back_by = None
                actions += self._kill_wanted(pid, NOT_BACK)
        return [*actions, *self._replacing.begin_due(now)]

    def _finish_if_done(self) -> list[Action]:
        if not self.starts_nothing or self.front is not None or self.workers or self._finished:
            return []
        self._finished = True
        return [Finish(self.exit_code)]
