"""Which old worker is replaced next, and why: on HUP all of them, for their age or size those that the front names.

One at a time: a successor is started, and the old worker goes on until that is ready. Decisions only, like
``supervisor.py``, which they are a part of.
"""

from __future__ import annotations

from . import control
from .events import Action, Log, RecycleWanted
from .preloading import Templates
from .roster import Roster, is_due
from .worker_kinds import Kind

# Seconds until a worker is replaced if it is too large as its predecessor was, or if its successor
# could not start.
RECYCLE_PAUSE = 60.0


class Replacing:
    """The workers whose successor has not been started yet."""

    def __init__(self, roster: Roster, templates: Templates, kind: Kind) -> None:
        self._roster = roster
        self._templates = templates
        self._kind = kind
        self._waiting: list[int] = []
        self._reloading = False
        self._told_too_large = False
        self._has_ended = False

    def reload(self, kill_at: float) -> list[Action]:
        """HUP: replace every worker. The log says when that is done. If workers are started from a template, another
        one loads the script first. One that is loading the script as it was before is killed at ``kill_at``."""
        if not self._kind.can_reload:
            return [Log("warning", "HUP does nothing: replacing workers one by one needs --worker_class process.")]
        self._reloading = True
        if self._kind.has_template:
            text = "Loading the script again. Then the workers are replaced one by one."
            return [Log("info", text), *self._templates.reload(kill_at)]
        return [Log("info", "Replacing the workers one by one."), *self._replace_all()]

    def follow(self) -> list[Action]:
        """The template that HUP has asked for has taken over: replace the workers of those before it."""
        # Something else may have failed meanwhile.
        self._reloading = True
        return [Log("info", "The script is loaded. Replacing the workers one by one."), *self._replace_all()]

    def _replace_all(self) -> list[Action]:
        # Leave out the workers whose successor is being started already, and the successors, which
        # are new enough.
        replaced = self._roster.being_replaced()
        self._waiting = [
            pid
            for pid, worker in self._roster.workers.items()
            if not worker.retiring and pid not in replaced and (worker.replaces is None or self._is_outdated(pid))
        ]
        return self.next()

    def _is_outdated(self, pid: int) -> bool:
        """Whether this worker has an older script than those that are started now."""
        return self._kind.has_template and self._roster.workers[pid].template != self._templates.current

    def arrived(self, pid: int) -> None:
        """A worker has been started. One that a template was asked for which HUP has replaced since is too old."""
        if self._templates.can_spawn and self._is_outdated(pid):
            self._waiting.append(pid)

    def tell_when_done(self) -> list[Action]:
        if not self._reloading or self._templates.is_reloading or self._waiting or self._roster.being_replaced():
            return []
        self._reloading = False
        return [Log("info", "All workers have been replaced.")] if not self._has_ended else []

    def next(self) -> list[Action]:
        """Start the successor of the next old worker, if none is being started."""
        if not self._waiting or self._has_ended or self._roster.being_replaced():
            return []
        if not self._templates.can_spawn:
            return self._templates.need()
        return self._roster.ask(self._templates.current, replaces=self._waiting.pop(0))

    def recycle(self, event: RecycleWanted) -> list[Action]:
        """The front wants this worker replaced."""
        worker = self._roster.workers.get(event.pid)
        if self._has_ended or worker is None or worker.retiring or worker.recycling:
            return []
        worker.recycling, worker.too_large = True, event.kind == control.LARGE
        what = f"{self._kind.name(event.pid)} {event.reason}"
        if worker.too_large and worker.follows_large and worker.ready_at is not None:
            worker.recycle_at = worker.ready_at + RECYCLE_PAUSE
            if self._told_too_large:
                return []
            self._told_too_large = True
            text = f"{what}, and so did the one before it. If the script needs that much, set a higher limit; as it is,"
            return [Log("warning", f"{text} a worker is replaced for it after {RECYCLE_PAUSE:g} s at the earliest.")]
        if event.pid in self._waiting or event.pid in self._roster.being_replaced():
            return []
        self._waiting.append(event.pid)
        return [Log("info", f"{what}. It is replaced."), *self.next()]

    def begin_due(self, now: float) -> list[Action]:
        """Replace the workers whose pause is over."""
        for pid, worker in self._roster.workers.items():
            if is_due(worker.recycle_at, now):
                worker.recycle_at = None
                self._waiting.append(pid)
        return self.next()

    def failed(self, what: str, now: float) -> list[Action]:
        """End a HUP, and try the front's requests again later, because a successor could not start.

        The sender of HUP can read the log and repeat it. The front asks only once.
        """
        serving = sum(worker.ready and not worker.retiring for worker in self._roster.workers.values())
        stay = "1 worker stays" if serving == 1 else f"{serving} workers stay"
        self._reloading = False
        self._waiting.clear()
        again = [worker for worker in self._roster.workers.values() if worker.recycling and not worker.retiring]
        for worker in again:
            worker.recycle_at = now + RECYCLE_PAUSE
        then = f"Trying again in {RECYCLE_PAUSE:g} s." if again else "When that is mended, send HUP again."
        text = f"{what} before it was ready, see above. THE OLD CODE STILL SERVES: {stay}. {then}"
        return [Log("error", text)]

    def wait_again(self, pid: int) -> None:
        """The successor of this worker could not be started."""
        self._waiting.insert(0, pid)

    def forget(self, pid: int) -> None:
        """Forget this worker, which has exited or is retiring."""
        self._waiting = [waiting for waiting in self._waiting if waiting != pid]

    def end(self) -> None:
        """Replace nothing any more, because the server stops."""
        self._waiting.clear()
        self._has_ended = True
