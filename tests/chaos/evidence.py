"""The records of a chaos run, and what a promise that was not kept looks like.

Data and lookups; ``invariants.py`` and ``joint_calls.py`` judge. Runs in the test process, when all
servers have ended.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

from . import orders
from .journal import Call, Journal
from .monkey import Harm
from .subjects import Calls
from .traffic import Note

# A request may still begin within this many seconds after its client has left, because the front
# learns that late.
SLACK = 1.0
# A new front takes up the connections that waited for it within this many seconds after the death of the last one.
NEW_FRONT = 3.0


@dataclasses.dataclass(frozen=True)
class Violation:
    """A promise that the server has not kept: the request concerned, and the details."""

    promise: str
    note: Note | None
    detail: str

    def __str__(self) -> str:
        if self.note is None:
            return f"{self.promise}: {self.detail}"
        note = self.note
        return f"{self.promise}: {note.kind} {note.id or '(no id)'} to {note.script}: {self.detail}"


@dataclasses.dataclass
class Evidence:
    """All records of a run about one server."""

    notes: list[Note]
    journal: Journal
    # Workers that were killed or stopped, and fronts that were killed.
    harms: list[Harm]
    front_deaths: list[Harm]
    calls: Calls = Calls.ONE_BY_ONE
    # Kinds of requests after which their worker is gone.
    deadly: tuple[str, ...] = orders.DEADLY

    @cached_property
    def deaths(self) -> list[Harm]:
        """Workers that were harmed, or that died by an order of their own."""
        own = [note for note in self.notes if note.kind in self.deadly]
        starts = [(start, note) for note in own for start in self.journal.starts.get(note.id, [])]
        return [*self.harms, *(Harm(note.script, start.pid, start.time, note.ended + SLACK) for start, note in starts)]

    @cached_property
    def members(self) -> dict[Call, list[str]]:
        """The requests of each call of run()."""
        return self.journal.calls()

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of each request."""
        return {note.id: note.kind for note in self.notes}
