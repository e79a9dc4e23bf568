"""Decides which worker is replaced next: on HUP, or when files have changed (--reload), every
worker, for its age or size a worker that the front names.

One worker at a time is replaced: its successor is started, and the old worker serves until the
successor is ready. Decisions only, as a part of ``state.py``.
"""

from __future__ import annotations

from typing import Callable

from . import control
from .events import TERM, Action, Kill, LoadFailed, Log, RecycleWanted, TellFront
from .preloading import Templates
from .worker_kinds import Kind
from .workers import KnownWorkers, is_due

# Seconds before a worker is replaced for its size if the worker before it was too large as well,
# counted from the moment when it was ready. Also the seconds until the next attempt if a successor
# could not start.
RECYCLE_PAUSE = 60.0
RELOADED = "The new workers serve. An old worker exits when it has finished its requests."


class Replacing:
    """The workers that wait for their replacement: no successor has been asked for yet."""

    def __init__(
        self,
        known: KnownWorkers,
        templates: Templates,
        kind: Kind,
        watches_files: bool,
        wanted: Callable[[], int],
    ) -> None:
        self._known = known
        # How many workers there should be.
        self._wanted = wanted
        self._templates = templates
        self._kind = kind
        self._waiting: list[int] = []
        self._reloading = False
        self._told_too_large = False
        self._has_ended = False
        # With --reload a changed file starts the replacement, and replies say if it has failed.
        self._watches_files = watches_files
        # The errors of the script that workers and templates have reported since the last reload
        # began, by pid.
        self._load_errors: dict[int, LoadFailed] = {}
        # Why the files could not be loaded as they are now; None if they have been. The front is
        # told it.
        self._outdated: str | None = None

    def reload(self, kill_at: float, changed: str | None = None) -> list[Action]:
        """Replace every worker, because HUP was received, or because the files that ``changed``
        names have changed. The log says when that is done.

        If workers are forked by a template, a new template loads the script first. A template or a
        successor that is still loading may have read the script before it was changed, so it is
        ended, and killed at ``kill_at`` if it has not ended.
        """
        if self._kind.fixed_by is not None:
            return [Log("warning", f"HUP does nothing: {self._kind.fixed_by}.")]
        self._reloading = True
        self._load_errors.clear()
        cause = "" if changed is None else f"{changed} changed. "
        if self._kind.has_template:
            text = f"{cause}Loading the script again. Then the workers are replaced one by one."
            return [Log("info", text), *self._templates.reload(kill_at)]
        text = f"{cause}Replacing the workers one by one."
        return [Log("info", text), *self._end_successors(kill_at), *self._replace_all()]

    def load_failed(self, event: LoadFailed) -> list[Action]:
        """Keep the error for the message that follows when the worker or template has ended."""
        self._load_errors[event.pid] = event
        return []

    def tell_front(self) -> list[Action]:
        """Tell a front that has just started if the last reload has failed."""
        return [] if self._outdated is None else [TellFront(control.Outdated(self._outdated))]

    def _end_successors(self, kill_at: float) -> list[Action]:
        """End the successors that are not ready yet. The workers that they should have replaced get
        others (``_replace_all``)."""
        actions: list[Action] = []
        for pid, worker in self._known.workers.items():
            if worker.replaces is not None and not worker.retiring:
                worker.replaces = None
                worker.retiring = True
                worker.kill_at = kill_at
                actions.append(Kill(pid, TERM))
        return actions

    def follow(self) -> list[Action]:
        """Replace the workers of earlier templates, because the template that HUP has asked for is
        ready."""
        # Set again, because another replacement may have failed meanwhile, which ends a reload
        # (``failed``).
        self._reloading = True
        return [Log("info", "The script is loaded. Replacing the workers one by one."), *self._replace_all()]

    def _replace_all(self) -> list[Action]:
        # Leaves out the workers whose successor is starting already, and those successors, unless
        # an older template has forked them.
        replaced = self._known.being_replaced()
        self._waiting = [
            pid
            for pid, worker in self._known.workers.items()
            if not worker.retiring and pid not in replaced and (worker.replaces is None or self._is_outdated(pid))
        ]
        return self.next()

    def _is_outdated(self, pid: int) -> bool:
        """True if this worker may have an older version of the script than the workers that are
        started now."""
        return self._kind.has_template and self._known.workers[pid].template != self._templates.current

    def arrived(self, pid: int) -> None:
        """Replace a worker that has just been started by an old template: HUP came after the worker
        was asked for."""
        if self._templates.can_spawn and self._is_outdated(pid):
            self._waiting.append(pid)

    def tell_when_done(self) -> list[Action]:
        """Log the end of a reload: a successor of every worker serves, and the old workers have
        been told to exit."""
        if not self._reloading or self._templates.is_reloading or self._waiting or self._known.being_replaced():
            return []
        self._reloading = False
        if self._has_ended:
            return []
        was_outdated, self._outdated = self._outdated is not None, None
        return [Log("info", RELOADED), *([TellFront(control.Current())] if was_outdated else [])]

    def next(self) -> list[Action]:
        """Ask for the successor of the next worker that waits, unless another successor is
        starting. If not all workers may load at once, those that are missing come first, because the
        worker that waits serves."""
        if not self._waiting or self._has_ended or self._known.being_replaced():
            return []
        if self._known.room <= self._known.missing(self._wanted()):
            return []
        if not self._templates.can_spawn:
            return self._templates.need()
        return self._known.ask(self._templates.current, replaces=self._waiting.pop(0))

    def recycle(self, event: RecycleWanted) -> list[Action]:
        """Replace a worker, because the front asks for that: for its age, its size, or because it
        exits."""
        worker = self._known.workers.get(event.pid)
        if self._has_ended or worker is None or worker.retiring or worker.recycling:
            return []
        worker.recycling, worker.too_large = True, event.kind == control.LARGE
        what = f"{self._kind.name(event.pid)} {event.reason}"
        if worker.too_large and worker.follows_large and worker.ready_at is not None:
            worker.recycle_at = worker.ready_at + RECYCLE_PAUSE
            if self._told_too_large:
                return []
            self._told_too_large = True
            text = (
                f"{what}, and so did the worker before it. If the script needs that much memory, set a higher limit."
                f" Until then a worker is replaced for its size {RECYCLE_PAUSE:g} s after it was ready, not earlier."
            )
            return [Log("warning", text)]
        if event.pid in self._waiting or event.pid in self._known.being_replaced():
            return []
        self._waiting.append(event.pid)
        return [Log("info", f"{what}. It is replaced."), *self.next()]

    def begin_due(self, now: float) -> list[Action]:
        """Let the workers whose pause is over wait for their replacement."""
        for pid, worker in self._known.workers.items():
            if is_due(worker.recycle_at, now):
                worker.recycle_at = None
                self._waiting.append(pid)
        return self.next()

    def failed(self, pid: int | None, what: str, now: float) -> list[Action]:
        """End a reload, and plan another attempt for the workers that the front named, because a
        successor, or its template, could not start. ``pid`` is None if that has no process.

        A reload is not repeated: whoever sent HUP can read the log and send it again. The front
        asks only once.
        """
        serving = self._known.serving
        stay = "1 worker goes" if serving == 1 else f"{serving} workers go"
        again = {pid: worker for pid, worker in self._known.workers.items() if worker.recycling and not worker.retiring}
        for worker in again.values():
            worker.recycle_at = now + RECYCLE_PAUSE
        advice = []
        if self._watches_files:
            advice.append("The next change of a file starts another attempt.")
        elif self._reloading or not again:
            advice.append("Correct the cause, then send HUP again.")
        if again:
            names = ", ".join(map(self._kind.name, again))
            advice.append(f"The next attempt to replace {names} is in {RECYCLE_PAUSE:g} s.")
        self._reloading = False
        self._waiting.clear()
        text = f"{what} before it was ready, see above. {stay} on serving with the code loaded before."
        if not self._watches_files:
            return [Log("error", " ".join((text, *advice)))]
        error = None if pid is None else self._load_errors.pop(pid, None)
        self._outdated = what if error is None else error.where
        first = [] if error is None else [f"{error.where}: {error.message}."]
        return [Log("error", " ".join((*first, text, *advice))), *self.tell_front()]

    def wait_again(self, pid: int) -> None:
        """Put a worker back to the front of those that wait, because its successor could not be
        started."""
        self._waiting.insert(0, pid)

    def forget(self, pid: int) -> None:
        """Drop a worker that waits for its replacement: it has exited or is retiring."""
        self._waiting = [waiting for waiting in self._waiting if waiting != pid]

    def end(self) -> None:
        """Replace no worker any more, because the server stops."""
        self._waiting.clear()
        self._has_ended = True
