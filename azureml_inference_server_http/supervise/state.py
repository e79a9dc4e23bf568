"""The supervisor's decisions: which child to start, to signal or to give up, and when.

A pure state machine: ``Supervisor.handle(event, now)`` returns actions and touches nothing outside
itself, so that every rule can be tested without a fork. ``processes.py`` makes the events and
performs the actions for worker processes, ``threads.py`` for worker threads. ``worker_kinds.py``
has the differences between the two.

The parts: ``children.py`` handles starts and ends of children, ``workers.py`` knows the workers,
``preloading.py`` the templates, ``replacing.py`` decides which worker is replaced next,
``restart_delay.py`` has the pauses after deaths. Rules: docs/design.md, "The supervisor";
docs/failures.md; contract section 16 for signals and exit codes.
"""

from __future__ import annotations

from ..launch import terminal
from . import control
from .children import EXIT_FAILED, EXIT_OK, KILL_AFTER, Children, Phase
from .events import (
    HUP,
    INT,
    KILL,
    QUIT,
    TERM,
    TTIN,
    TTOU,
    Action,
    Continued,
    Disconnected,
    Event,
    Exited,
    Failed,
    FilesChanged,
    Finish,
    HungUp,
    Kill,
    KillWanted,
    Loaded,
    LoadFailed,
    Log,
    Ready,
    RecycleWanted,
    Released,
    Returned,
    Signalled,
    Spawned,
    SpawnFailed,
    SpawnFront,
    Started,
    Stopped,
    TellFront,
)
from .workers import RECONNECT, is_due

# A front that has not ended this many seconds after its own time limit counts as stuck, and is
# killed.
FRONT_GRACE = 2.0
# Reasons to kill a worker that was busy when it lost its connection to the front. The supervisor limits
# its time, because a front can do that only for the workers that are connected to it.
NOT_BACK = "did not connect to the front again within the time for a request (WORKER_TIMEOUT, SCORING_TIMEOUT_MS)"
NOT_ENDED = (
    "did not end within the time for a request (WORKER_TIMEOUT, SCORING_TIMEOUT_MS) and --graceful_timeout together"
)


class Supervisor(Children):
    """The complete state machine: takes events and returns actions."""

    # ---- Entry points

    def handle(self, event: Event, now: float) -> list[Action]:
        """Change the state by ``event``, which happened at ``now`` (seconds, monotonic). Returns
        the actions that the caller must perform, in this order."""
        if isinstance(event, Started):
            actions: list[Action] = [SpawnFront(), *self._fill_up()]
        elif isinstance(event, Spawned):
            actions = self._spawned(event, now)
        elif isinstance(event, SpawnFailed):
            actions = self._spawn_failed(event, now)
        elif isinstance(event, Loaded):
            actions = self._loaded(event.pid)
        elif isinstance(event, Exited):
            actions = self._exited(event, now)
        elif isinstance(event, Returned):
            actions = self._returned(event.pid)
        elif isinstance(event, (Stopped, Continued)):
            actions = self._stopped_or_continued(event)
        elif isinstance(event, Ready):
            actions = self._ready(event.pid, now)
        elif isinstance(event, Disconnected):
            actions = self._disconnected(event.pid, now)
        elif isinstance(event, KillWanted):
            actions = self._kill_wanted(event.pid, event.reason)
        elif isinstance(event, RecycleWanted):
            actions = self._replacing.recycle(event)
        elif isinstance(event, Released):
            actions = self._clean_up(now) if self.phase is Phase.DRAINING else []
        elif isinstance(event, Signalled):
            actions = self._signalled(event.number, now)
        elif isinstance(event, FilesChanged):
            actions = self._files_changed(event, now)
        elif isinstance(event, LoadFailed):
            actions = self._replacing.load_failed(event)
        elif isinstance(event, HungUp):
            actions = self._hung_up(event, now)
        elif isinstance(event, Failed):
            actions = self._failed(now)
        else:
            actions = self._tick(now)
        actions += self._begin_next()
        return [*actions, *self._replacing.tell_when_done(), *self._finish_if_done()]

    def _begin_next(self) -> list[Action]:
        """Start what had to wait until another worker had loaded the script (--init_concurrency).
        Workers that wait for the end of a pause go on waiting."""
        if self.starts_nothing or not self._known.limits_loading:
            return []
        missing = [] if self._spawn_workers_at is not None else self._fill_up()
        return [*missing, *self._replacing.next()]

    def time_to_clean_up(self, now: float) -> float | None:
        """Seconds that are left for the cleanup of scripts; None if the server stops at once."""
        return max(0.0, self._graceful_until - now) if self.phase is Phase.CLEANING_UP else None

    def next_wakeup(self) -> float | None:
        """The time at which the caller must send the next Tick; None if nothing is planned."""
        hurry_at = self._graceful_until if self.phase is Phase.CLEANING_UP else None
        own = [self._spawn_front_at, self._spawn_workers_at, self._kill_front_at, hurry_at]
        times = [*own, *self._known.wakeups(), *self._templates.wakeups()]
        return min((time for time in times if time is not None), default=None)

    # ---- Signals and changed files

    def _signalled(self, number: int, now: float) -> list[Action]:
        if number == TERM:
            return self._drain(now)
        if number in (INT, QUIT):
            return self._stop(EXIT_OK, now)
        if self.phase is not Phase.SERVING:
            return []
        if number == HUP:
            return self._replacing.reload(now + KILL_AFTER)
        if number == TTIN:
            self.worker_count += 1
            return self._fill_up()
        if number == TTOU and self.worker_count > 1:
            self.worker_count -= 1
            return self._retire(self._known.too_many(self.worker_count), now)
        return []

    def _files_changed(self, event: FilesChanged, now: float) -> list[Action]:
        """Replace the workers as after HUP. Start those that wait for another attempt at once,
        because this change may have corrected the script."""
        if self.phase is not Phase.SERVING:
            return []
        filled = [] if self._spawn_workers_at is None else self._fill_up()
        return [*filled, *self._replacing.reload(now + KILL_AFTER, event.what)]

    def _hung_up(self, event: HungUp, now: float) -> list[Action]:
        """Drain as after TERM, because the terminal is lost but clients may wait for answers."""
        if event.is_ignored or self.phase is not Phase.SERVING:
            return []
        return [Log("warning", terminal.GONE), *self._drain(now)]

    # ---- The end

    def _failed(self, now: float) -> list[Action]:
        """Stop everything at once, because after an error in the supervisor its state may be
        wrong."""
        if self.phase is Phase.STOPPING:
            self.exit_code = self.exit_code or EXIT_FAILED
        return self._stop(EXIT_FAILED, now)

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
        return [Log("info", "Stopping: finishing the requests that are queued or running."), TellFront(control.Drain())]

    def _clean_up(self, now: float) -> list[Action]:
        """Tell the workers to exit, because every request is answered. Their scripts' cleanup has
        the rest of the graceful timeout."""
        self.phase = Phase.CLEANING_UP
        self._spawn_workers_at = None
        self._graceful_until = max(self._graceful_until, now + KILL_AFTER)
        for worker in self.workers.values():
            worker.back_by = None
            if not worker.ready:
                # It has served nothing, so its script has nothing to clean up. It is not waited
                # for, because its init() may take any time.
                worker.kill_at = now + KILL_AFTER
        actions: list[Action] = [Kill(pid, TERM) for pid in self.workers]
        return [*actions, *self._templates.end_all(now, KILL_AFTER, is_hurried=False)]

    def _hurry(self, now: float) -> list[Action]:
        """Stop at once, because the graceful timeout is over. Workers log first what their scripts
        have not finished (``process_exit.py``)."""
        left = {"workers": list(self.workers), "template": list(self._templates.all)}
        named = ", ".join(f"{what} {', '.join(map(str, pids))}" for what, pids in left.items() if pids)
        text = (
            f"--graceful_timeout ({self.graceful_timeout:g} s) is over, and these still run: {named}. They are stopped."
        )
        return [Log("warning", text), *self._stop(self.exit_code, now, self._kind.last_words)]

    def _stop(self, code: int, now: float, patience: float = KILL_AFTER) -> list[Action]:
        """End everything now: the front answers the requests that wait, and the workers are killed
        after ``patience`` seconds.

        SIGQUIT tells the workers to hurry. It is sent before the front is told to stop, because a
        worker that the front lets go first would take the whole graceful timeout for its exit.
        """
        if self.phase is Phase.STOPPING:
            return []
        self.phase = Phase.STOPPING
        self.exit_code = code
        self._replacing.end()
        self._spawn_front_at = self._spawn_workers_at = None
        for worker in self.workers.values():
            worker.kill_at = now + patience
            worker.back_by = None
        actions: list[Action] = [Kill(pid, QUIT) for pid in self.workers]
        actions += self._templates.end_all(now, patience, is_hurried=True)
        if self.front is not None:
            self._kill_front_at = now + FRONT_GRACE
            actions.append(TellFront(control.Stop()))
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
                actions += [Log("error", "The front did not end in time. It is killed."), Kill(self.front, KILL)]
        has_children = bool(self.workers or self._templates.all)
        if self.phase is Phase.CLEANING_UP and has_children and now >= self._graceful_until:
            actions += self._hurry(now)
        for children in (self.workers, self._templates.all):
            for pid, child in children.items():
                if is_due(child.kill_at, now):
                    child.kill_at = None
                    actions.append(Kill(pid, KILL))
        for pid, worker in self.workers.items():
            if is_due(worker.back_by, now) and self._is_debugged(pid):
                worker.back_by = now + RECONNECT
            elif is_due(worker.back_by, now):
                worker.back_by = None
                actions += self._kill_wanted(pid, NOT_ENDED if worker.retiring else NOT_BACK)
        return [*actions, *self._replacing.begin_due(now)]

    def _finish_if_done(self) -> list[Action]:
        is_alone = self.front is None and not self.workers and not self._templates.all
        if not self.starts_nothing or not is_alone or self._finished:
            return []
        self._finished = True
        return [Finish(self.exit_code)]
