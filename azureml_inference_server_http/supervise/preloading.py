"""Keeps the templates: the one that starts workers, the one that is loading the script, and those
that are ending.

A template loads the script once, and workers are started from it. With WORKER_PRELOAD it is a
process, with worker threads it is the main thread. At most one template starts workers and at most
one loads. Earlier templates may still be running the script's cleanup. Decisions only, as a part
of ``state.py``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from .events import QUIT, Action, Kill, ReleaseTemplate, SpawnTemplate


class Condition(enum.Enum):
    """The state of a template."""

    # It is loading the script.
    LOADING = enum.auto()
    # It has loaded the script, and workers are started from it.
    CURRENT = enum.auto()
    # It was told to end, and runs the script's cleanup.
    ENDING = enum.auto()


class Template:
    """The supervisor's record of one template."""

    def __init__(self, reloads: bool) -> None:
        self.condition = Condition.LOADING
        # True if HUP has asked for it. When it has loaded the script, all workers are replaced.
        self.reloads = reloads
        # The time at which it is killed unless it has ended by then.
        self.kill_at: float | None = None


class Templates:
    """All templates by pid."""

    def __init__(self, are_used: bool) -> None:
        # False if each worker loads the script itself.
        self._are_used = are_used
        self.all: dict[int, Template] = {}
        # A template has been asked for and does not run yet.
        self._asked = False
        # HUP has asked for that template.
        self._asked_to_reload = False

    @property
    def current(self) -> int | None:
        """Pid of the template that workers are started from; None if there is none, or if templates
        are not used."""
        return self._find(Condition.CURRENT)

    @property
    def can_spawn(self) -> bool:
        """True if a worker can be started now: from a template, or without one if templates are not
        used."""
        return not self._are_used or self.current is not None

    @property
    def is_reloading(self) -> bool:
        """True from HUP until the template that it asked for has loaded the script."""
        loading = self._find(Condition.LOADING)
        return self._asked_to_reload or (loading is not None and self.all[loading].reloads)

    def need(self) -> list[Action]:
        """Ask for a template, because a worker has to be started, unless one was asked for or is
        loading."""
        if self._asked or self._find(Condition.LOADING) is not None:
            return []
        self._asked = True
        return [SpawnTemplate()]

    def reload(self, kill_at: float) -> list[Action]:
        """Ask for a template, because the script may have changed. A template that is loading is
        ended: it may have read the script before the change."""
        loading = self._find(Condition.LOADING)
        actions = [] if loading is None else self._end(loading, kill_at)
        self._asked = self._asked_to_reload = True
        return [*actions, SpawnTemplate()]

    def arrived(self, pid: int) -> None:
        """Note that the template that was asked for runs."""
        self.all[pid] = Template(self._asked_to_reload)
        self._asked = self._asked_to_reload = False

    def refused(self) -> bool:
        """Note that the template that was asked for could not be started. Returns True if HUP had
        asked for it."""
        reloads = self._asked_to_reload
        self._asked = self._asked_to_reload = False
        return reloads

    def loaded(self, pid: int) -> list[Action]:
        """Start workers from this template from now on, because it has loaded the script. Ends the
        one before it."""
        old = self.current
        actions: list[Action] = [] if old is None else self._end(old, None)
        self.all[pid].condition = Condition.CURRENT
        return actions

    def end_all(self, now: float, patience: float, is_hurried: bool) -> list[Action]:
        """End every template, because the server ends.

        A template that is loading is killed after ``patience`` seconds, because it has nothing to
        finish. The others run the script's cleanup. They are killed after ``patience`` seconds
        only if ``is_hurried``.
        """
        actions: list[Action] = []
        for pid, template in self.all.items():
            kill_at = now + patience if is_hurried or template.condition is Condition.LOADING else None
            if is_hurried:
                actions.append(Kill(pid, QUIT))
            actions += self._end(pid, kill_at)
        return actions

    def left(self, pid: int) -> Template | None:
        """Remove the record of a child that has ended, and return it; None if the child was no
        template."""
        return self.all.pop(pid, None)

    def wakeups(self) -> Iterator[float | None]:
        """The times at which a template is killed unless it has ended."""
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
