"""The supervisor's decisions when a child starts, gets ready, stops or ends. The other part is
``state.py``.

Decisions only: nothing here touches the operating system. Rules: docs/design.md, "The supervisor",
and docs/failures.md.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Callable

from . import control
from .events import (
    KILL,
    TERM,
    Action,
    Continued,
    CountRestart,
    Exited,
    Kill,
    Log,
    Role,
    Spawned,
    SpawnFailed,
    Stopped,
    TellFront,
)
from .preloading import Condition, Template, Templates
from .replacing import Replacing
from .restart_delay import BACK_OFF, CRASH_BACK_OFF, MAX_EARLY_DEATHS, STEADY, Fronts, Series
from .worker_kinds import PROCESSES, Kind, describe_exit, describe_signal
from .workers import KnownWorkers, Worker

EXIT_OK = 0
# The front or the supervisor has failed.
EXIT_FAILED = 1
EXIT_CANNOT_START = 3
# A worker or template that exits with one of these codes before it is ready is not started again:
# the script cannot be loaded, or its init() fails, so another attempt would fail as well.
FATAL_EXIT_CODES = (3, 4)
# Seconds until the supervisor tries again to start a child that the system refused to start.
SPAWN_AGAIN = 1.0
# Seconds between the signal that tells a worker to exit and its SIGKILL, when the server stops at
# once or the graceful timeout is over.
KILL_AFTER = 0.5
# Worker threads that may be stuck, for each thread of --worker_count. From that number on the log
# asks for a restart.
MANY_LEFT_BEHIND = 8


class Phase(enum.Enum):
    """What the command as a whole is doing. A phase is only followed by a later one."""

    SERVING = enum.auto()
    # After TERM: the front finishes the requests that are queued or running.
    DRAINING = enum.auto()
    # Every request is answered. The front exits, and the workers run the cleanup of their
    # scripts.
    CLEANING_UP = enum.auto()
    # After INT, QUIT, a failure, or the graceful timeout: every child that has not exited soon is
    # killed.
    STOPPING = enum.auto()


class Children:
    """The state of all children, and the decisions when a child changes its state."""

    def __init__(
        self,
        worker_count: int,
        graceful_timeout: float,
        kind: Kind = PROCESSES,
        longest_request: float | None = None,
        is_debugged: Callable[[int], bool] = lambda pid: False,
        watches_files: bool = False,
        init_concurrency: int = 0,
    ) -> None:
        self.worker_count = worker_count
        self.graceful_timeout = graceful_timeout
        # Tells if a debugger holds the process with this pid. Called before a worker is killed for
        # a time limit.
        self._is_debugged = is_debugged
        self._kind = kind
        self.front: int | None = None
        # Workers that a template forks load nothing.
        at_once = 0 if kind.has_template else init_concurrency
        self._known = KnownWorkers(longest_request, graceful_timeout, at_once)
        self.workers = self._known.workers
        self._templates = Templates(kind.has_template)
        # Worker threads that did not return in time. They cannot be killed, and may still return.
        self._left_behind: set[int] = set()
        self.exit_code = EXIT_OK
        self.phase = Phase.SERVING
        # Deaths in a row of workers that were not ready yet.
        self._early_deaths = Series(*BACK_OFF)
        # Deaths in a row of workers within STEADY seconds of being ready.
        self._quick_deaths = Series(0.0, *CRASH_BACK_OFF)
        self._fronts = Fronts()
        self._replacing = Replacing(self._known, self._templates, kind, watches_files, lambda: self.worker_count)
        self._spawn_front_at: float | None = None
        self._spawn_workers_at: float | None = None
        self._kill_front_at: float | None = None
        # The last reason why the system refused to start a child of this role. Kept until a start
        # succeeds, so that the same reason is logged once and not every second.
        self._refusals: dict[Role, str] = {}
        # The time at which the graceful timeout is over. Set by TERM.
        self._graceful_until = 0.0
        self._finished = False

    @property
    def starts_nothing(self) -> bool:
        """True in the phases in which no child is started any more."""
        return self.phase in (Phase.CLEANING_UP, Phase.STOPPING)

    @property
    def starting_workers(self) -> int:
        """Workers that are wanted and do not serve yet: asked for, loading the script, or waiting
        for something."""
        if self.starts_nothing:
            return 0
        return self._known.loading + self._known.missing(self.worker_count)

    def _stop(self, code: int, now: float, patience: float = KILL_AFTER) -> list[Action]:
        """End everything now."""
        raise NotImplementedError

    def _clean_up(self, now: float) -> list[Action]:
        """Tell the workers to exit, because every request is answered."""
        raise NotImplementedError

    # ---- Starts and ends

    def _fill_up(self) -> list[Action]:
        """Ask for the workers that are missing, as many as may load at once, or, if there is no
        template to fork them, for a template."""
        missing = self._known.missing(self.worker_count)
        if missing and not self._templates.can_spawn:
            return self._templates.need()
        template = self._templates.current
        return [action for _ in range(min(missing, self._known.room)) for action in self._known.ask(template)]

    def _spawned(self, event: Spawned, now: float) -> list[Action]:
        self._refusals.pop(event.role, None)
        if event.role is Role.FRONT:
            self.front = event.pid
            self._fronts.begin(now)
            self._known.expect_back(now)
        elif event.role is Role.TEMPLATE:
            self._templates.arrived(event.pid)
        else:
            self._known.arrived(event.pid, event.template)
            self._replacing.arrived(event.pid)
        if self.starts_nothing:
            return [Kill(event.pid, KILL)]
        if event.role is Role.FRONT:
            return self._replacing.tell_front()
        # TTOU may have lowered the number of workers after this one had been asked for.
        actions = self._retire(self._known.too_many(self.worker_count), now) if event.role is Role.WORKER else []
        return actions if event.template is None else [*actions, *self._replacing.next()]

    def _spawn_failed(self, event: SpawnFailed, now: float) -> list[Action]:
        """Plan another attempt. The children that run are not affected. ``event.reason`` is a whole
        sentence."""
        if event.role is Role.TEMPLATE and self._templates.refused() and self._known.serving:
            return self._replacing.failed(None, f"The new template process could not be started ({event.reason})", now)
        if event.role is Role.WORKER:
            replaced = self._known.refused(event.template)
            if replaced is not None:
                self._replacing.wait_again(replaced)
        if event.role is Role.FRONT:
            self._spawn_front_at = now + SPAWN_AGAIN
        elif not self.starts_nothing:
            self._spawn_workers_at = now + SPAWN_AGAIN
        if self._refusals.get(event.role) == event.reason:
            return []
        self._refusals[event.role] = event.reason
        what = {Role.FRONT: "the front process", Role.TEMPLATE: "the template process", Role.WORKER: "a worker"}
        return [Log("error", f"Cannot start {what[event.role]}: {event.reason} Trying again every second.")]

    def _loaded(self, pid: int) -> list[Action]:
        """Use a template that has loaded the script. If HUP has asked for it, every worker gets a
        successor from it."""
        template = self._templates.all.get(pid)
        if template is None or template.condition is not Condition.LOADING:
            return []
        actions = self._templates.loaded(pid)
        self._early_deaths.end()
        if template.reloads:
            actions += self._replacing.follow()
        return [*actions, *self._fill_up(), *self._replacing.next()]

    def _exited(self, event: Exited, now: float) -> list[Action]:
        if event.pid == self.front:
            return self._front_exited(event, now)
        template = self._templates.left(event.pid)
        if template is not None:
            return self._template_exited(event, template, now)
        worker = self._known.left(event.pid)
        if worker is None:
            return []
        how = self._kind.describe_exit(event.code)
        actions = self._tell_front(control.Exited(event.pid, how))
        self._replacing.forget(event.pid)
        if worker.condemned and not self._kind.can_kill:
            actions += self._leave_behind(event.pid)
        expected = event.code in (0, -TERM) or not worker.ready
        if self.starts_nothing or (worker.retiring and expected):
            return [*actions, *self._replacing.next()]
        if not (worker.condemned and event.code == -KILL):
            actions.append(self._log_death(self._kind.name(event.pid), event.code, how))
        if worker.replaces is None and not worker.retiring:
            actions.append(CountRestart(worker.why_ended(event)))
        if worker.ready_at is None:
            return actions + self._early_death(event, worker, how, now)
        if worker.condemned and not self._kind.can_kill:
            # This thread was left behind on the supervisor's decision. That is no crash, so there
            # is no pause.
            actions += self._fill_up()
        elif not worker.retiring:
            actions += self._fill_up_after_crash(now - worker.ready_at, now)
        return [*actions, *self._replacing.next()]

    def _log_death(self, who: str, code: int, how: str) -> Log:
        hint = " Perhaps the system ran out of memory." if code == -KILL and self._kind.can_kill else ""
        return Log("info" if code == 0 else "error", f"{who} {how}.{hint}")

    def _template_exited(self, event: Exited, template: Template, now: float) -> list[Action]:
        """A template has ended. Its workers do not need it any more; a worker that is missing needs
        another one."""
        if self.starts_nothing or template.condition is Condition.ENDING:
            return []
        how = describe_exit(event.code)
        actions: list[Action] = []
        if self._kind.can_kill:
            actions.append(self._log_death(f"The template process (pid:{event.pid})", event.code, how))
        if template.condition is Condition.CURRENT:
            return [*actions, *self._fill_up(), *self._replacing.next()]
        if template.reloads and self._known.serving:
            failed = self._replacing.failed(event.pid, f"The new template process (pid:{event.pid}) {how}", now)
            if self._known.missing(self.worker_count) and not self._templates.can_spawn:
                self._spawn_workers_at = now + SPAWN_AGAIN
            return [*actions, *failed]
        return actions + self._early_death(event, None, how, now)

    def _leave_behind(self, pid: int) -> list[Action]:
        self._left_behind.add(pid)
        count = len(self._left_behind)
        if count < MANY_LEFT_BEHIND * self.worker_count:
            return []
        text = (
            f"{count} worker threads are stuck in calls of run(). They keep memory, and perhaps locks. Restart the"
            " server, or use --worker_class process, whose workers can be killed."
        )
        return [Log("error", text)]

    def _returned(self, pid: int) -> list[Action]:
        if pid not in self._left_behind:
            return []
        self._left_behind.discard(pid)
        return [Log("info", f"The call of worker thread {pid} has returned, and the thread has ended.")]

    def _stopped_or_continued(self, event: Stopped | Continued) -> list[Action]:
        """Tell the front that a signal has stopped or continued a worker's process. The front gives
        the worker's requests to others, and asks to kill it when it has been stopped for longer
        than a request may take."""
        worker = self.workers.get(event.pid)
        if worker is None:
            return []
        worker.stopped = isinstance(event, Stopped)
        if isinstance(event, Stopped):
            how = f"was stopped by {describe_signal(event.number)}. It gets no requests until it is continued"
            told: control.Order = control.Stopped(event.pid)
            return [Log("warning", f"{self._kind.name(event.pid)} {how}."), *self._tell_front(told)]
        told = control.Continued(event.pid)
        return [Log("info", f"{self._kind.name(event.pid)} was continued."), *self._tell_front(told)]

    def _tell_front(self, order: control.Order) -> list[Action]:
        return [] if self.front is None else [TellFront(order)]

    def _fill_up_after_crash(self, served: float, now: float) -> list[Action]:
        """Replace a worker that has crashed, ``served`` seconds after it was ready.

        The first one is replaced at once, because the likely cause is the request that it was
        running. If several in a row die within STEADY seconds, the next ones wait. The supervisor
        never gives up here, because the workers that live go on serving.
        """
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

    def _early_death(self, event: Exited, worker: Worker | None, how: str, now: float) -> list[Action]:
        """A worker died before it was ready, or a template (None) before it had loaded the
        script."""
        if worker is not None and worker.replaces is not None:
            return self._replacing.failed(event.pid, f"The new worker (pid:{event.pid}) {how}", now)
        serving = self._known.serving
        if event.code in FATAL_EXIT_CODES and not serving:
            text = "The scoring script could not be started, see above. The server ends."
            return [Log("error", text), *self._stop(event.code, now)]
        pause = self._early_deaths.add()
        count = self._early_deaths.count
        if count >= MAX_EARLY_DEATHS and not serving:
            text = f"{count} workers in a row died before they were ready, the last one {how}. The server ends."
            return [Log("critical", text), *self._stop(EXIT_CANNOT_START, now)]
        if self._spawn_workers_at is None:
            self._spawn_workers_at = now + pause
        return []

    def _front_exited(self, event: Exited, now: float) -> list[Action]:
        self.front = None
        self._kill_front_at = None
        if self.starts_nothing:
            return []
        if not self._kind.can_replace_front and (event.code or self.phase is Phase.SERVING):
            return [Log("critical", "The front failed. The server ends."), *self._stop(EXIT_FAILED, now)]
        if self.phase is Phase.DRAINING:
            return self._clean_up(now)
        # The requests of this front are lost. The supervisor keeps the listeners open, so new
        # connections wait in their backlog for the next front.
        self._known.lose_front(now)
        pause = self._fronts.end(now)
        how = describe_exit(event.code)
        if self._fronts.useless > MAX_EARLY_DEATHS:
            text = f"{self._fronts.useless} front processes in a row died, the last one {how}. The server ends."
            return [Log("critical", text), *self._stop(EXIT_FAILED, now)]
        self._spawn_front_at = now + pause
        return [Log("error", f"The front process (pid:{event.pid}) {how}. Starting another one.")]

    def _ready(self, pid: int, now: float) -> list[Action]:
        worker = self.workers.get(pid)
        if worker is None:
            return []
        worker.lost_at = worker.back_by = None
        # This front has not heard that the worker is stopped or retires: it may have started since,
        # and ignores orders about workers that are not connected.
        actions: list[Action] = [TellFront(control.Stopped(pid))] if worker.stopped else []
        if worker.retiring:
            return [*actions, TellFront(control.Retire(pid))]
        if worker.ready_at is None:
            worker.ready_at = now
        self._early_deaths.end()
        self._fronts.useless = 0
        old, worker.replaces = worker.replaces, None
        if old is None:
            return actions
        replaced = self.workers.get(old)
        if replaced is not None:
            actions.append(CountRestart("recycle" if replaced.recycling else "reload"))
        return [*actions, *self._retire([old], now), *self._replacing.next()]

    def _disconnected(self, pid: int, now: float) -> list[Action]:
        """The front has ended its connection to a worker, so it does not end a request there that takes too long."""
        self._known.lose(pid, now)
        return []

    def _retire(self, pids: Iterable[int], now: float) -> list[Action]:
        """Tell workers to exit when they have answered the jobs that they have. A worker limits the
        time for its exit itself (``process_exit.py``), because only the worker knows when it has
        given its last answer."""
        actions: list[Action] = []
        for pid in pids:
            worker = self.workers.get(pid)
            if worker is None or worker.retiring:
                continue
            worker.retiring = True
            worker.recycle_at = None
            # A worker that exits anyway needs no successor.
            self._replacing.forget(pid)
            if worker.ready:
                actions.append(TellFront(control.Retire(pid)))
            else:
                # It has no request to finish. It is not waited for, because its init() may take any
                # time.
                worker.kill_at = now + KILL_AFTER
                actions.append(Kill(pid, TERM))
        return actions

    def _kill_wanted(self, pid: int, reason: str) -> list[Action]:
        worker = self.workers.get(pid)
        if worker is None:
            return []
        worker.condemned = True
        end = self._kind.end_of_stuck_retiring if worker.retiring else self._kind.end_of_stuck
        text = f"{self._kind.name(pid)} {reason}. {end}"
        return [Log("critical", text), Kill(pid, KILL)]
