"""The templates that there are: which one starts workers, and whether another one is loading the script.

A template loads the script once, and workers are started from it: a process with WORKER_PRELOAD, the main thread with
worker threads. At most one starts workers and at most one loads; those before it may still be at their end. Decisions
only, like ``supervisor.py``, which they are a part of.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from .events import QUIT, Action, Kill, ReleaseTemplate, SpawnTemplate


class Condition(enum.Enum):
    """How far a template is in its life."""

    LOADING = enum.auto()
    # Workers are started from it.
    CURRENT = enum.auto()
    # It does what the script has to do at its end.
    ENDING = enum.auto()


class Template:
    """What is known about one template."""

    def __init__(self, reloads: bool) -> None:
        self.condition = Condition.LOADING
        # HUP has asked for it: when it has loaded the script, it takes over from the one before it.
        self.reloads = reloads
        # When it is killed if it has not ended by then.
        self.kill_at: float | None = None


class Templates:
    """All templates by pid."""

    def __init__(self, are_used: bool) -> None:
        # False if each worker loads the script itself.
        self._are_used = are_used
        self.all: dict[int, Template] = {}
        # One has been asked for, and whether HUP has asked for it.
        self._asked = False
        self._asked_to_reload = False

    @property
    def current(self) -> int | None:
        """The template that workers are started from; None if there is none now, or if none are used."""
        return self._find(Condition.CURRENT)

    @property
    def can_spawn(self) -> bool:
        """Whether workers can be started now."""
        return not self._are_used or self.current is not None

    @property
    def is_reloading(self) -> bool:
        """Whether HUP has asked for a template that has not loaded the script yet."""
        loading = self._find(Condition.LOADING)
        return self._asked_to_reload or (loading is not None and self.all[loading].reloads)

    def need(self) -> list[Action]:
        """A worker has to be started, and there is no template for that."""
        if self._asked or self._find(Condition.LOADING) is not None:
            return []
        self._asked = True
        return [SpawnTemplate()]

    def reload(self, kill_at: float) -> list[Action]:
        """Start a template for a script that may have changed. One that is loading may have read the old script."""
        loading = self._find(Condition.LOADING)
        actions = [] if loading is None else self._end(loading, kill_at)
        self._asked = self._asked_to_reload = True
        return [*actions, SpawnTemplate()]

    def arrived(self, pid: int) -> None:
        """The one that was asked for runs."""
        self.all[pid] = Template(self._asked_to_reload)
        self._asked = self._asked_to_reload = False

    def refused(self) -> bool:
        """The one that was asked for could not be started. Returns whether HUP has asked for it."""
        reloads = self._asked_to_reload
        self._asked = self._asked_to_reload = False
        return reloads

    def loaded(self, pid: int) -> list[Action]:
        """This one has loaded the script and takes over."""
        old = self.current
        actions: list[Action] = [] if old is None else self._end(old, None)
        self.all[pid].condition = Condition.CURRENT
        return actions

    def end_all(self, now: float, patience: float, is_hurried: bool) -> list[Action]:
        """The server ends. What is still loading has nothing to finish and gets ``patience`` seconds; the others have
        as long only if they have to hurry."""
        actions: list[Action] = []
        for pid, template in self.all.items():
            kill_at = now + patience if is_hurried or template.condition is Condition.LOADING else None
            if is_hurried:
                actions.append(Kill(pid, QUIT))
            actions += self._end(pid, kill_at)
        return actions

    def left(self, pid: int) -> Template | None:
        """A child has ended. Returns what was known about it; None if it was no template."""
        return self.all.pop(pid, None)

    def wakeups(self) -> Iterator[float | None]:
        """When something is due for a template."""
        for template in self.all.values():
            yield template.kill_at

    def _end(self, pid: int, kill_at: float | None) -> list[Action]:
        template = self.all[pid]
        template.kill_at = kill_at if template.kill_at is None else template.kill_at
        if template.condition is Condition.ENDING:
            return []
        template.condition = Condition.ENDING
        return [ReleaseTemplate(pid)]

    def _find(self, condition: Condition) -> int | None:
        return next((pid for pid, template in self.all.items() if template.condition is condition), None)
