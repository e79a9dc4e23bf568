"""What must hold whatever was killed: finds every request that has a reason to complain.

Pure functions over the clients' notes, the scripts' journals and the monkey's diary. Runs in the
test process, when all servers have ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from . import orders
from .journal import Start
from .monkey import Harm
from .traffic import Note

# A request may still begin within this many seconds after its client has left, because the front
# learns that late.
SLACK = 1.0


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
    journal: dict[str, list[Start]]
    # Workers that were killed or stopped, and fronts that were killed.
    harms: list[Harm]
    front_deaths: list[Harm]

    def deaths(self) -> list[Harm]:
        """Workers that were harmed, or that died by an order of their own."""
        own = [note for note in self.notes if note.kind in orders.DEADLY]
        starts = [(start, note) for note in own for start in self.journal.get(note.id, [])]
        return [*self.harms, *(Harm(note.script, start.pid, start.time, note.ended + SLACK) for start, note in starts)]


def violations(evidence: Evidence) -> Iterator[Violation]:
    """All violations of one server."""
    known = {note.id for note in evidence.notes}
    for id, starts in evidence.journal.items():
        if id not in known:
            yield Violation("only what was sent is run", None, f"{id} was run by {starts}")
    deaths = evidence.deaths()
    for note in evidence.notes:
        starts = evidence.journal.get(note.id, []) if note.id else []
        if len(starts) > 1:
            yield Violation("no request runs twice", note, f"began {starts}")
        yield from _of_outcome(note, starts[0] if starts else None, evidence, deaths)


def _of_outcome(note: Note, start: Start | None, evidence: Evidence, deaths: list[Harm]) -> Iterator[Violation]:
    if note.outcome in (orders.WRONG, orders.SILENT):
        yield Violation("every request gets one complete answer", note, note.text)
    elif note.outcome == orders.ANSWERED and start is None:
        yield Violation("an answer comes from run()", note, "it never ran")
    elif note.outcome == orders.REFUSED and start is not None:
        yield Violation("what is refused is not run", note, f"refused with {note.text}, and began {start}")
    elif note.outcome == orders.LEFT:
        yield from _of_leaver(note, start, evidence.harms)
    elif note.outcome == orders.FAILED and not _is_guilty(note, start, evidence.harms, deaths):
        yield Violation("only a request on a lost worker fails", note, f"{note.text} (began: {start})")
    elif note.outcome == orders.CUT and not _may_be_cut(note, start, evidence):
        yield Violation("a connection is cut only with its front or its stream's worker", note, note.text)


def _of_leaver(note: Note, start: Start | None, harms: list[Harm]) -> Iterator[Violation]:
    if start is None:
        return
    if note.sent is None:
        yield Violation("half a request is not run", note, f"began {start}")
    elif start.time > note.ended + SLACK and not _was_begun_and_stopped(note, start, harms):
        late = start.time - note.ended
        yield Violation("a client that left is not served", note, f"its request began {late:.2f} s after it had left")


def _was_begun_and_stopped(note: Note, start: Start, harms: list[Harm]) -> bool:
    """True if its worker was stopped while the client was connected, perhaps between claiming the
    request and calling run()."""
    sent = note.opened if note.sent is None else note.sent
    return any(
        harm.pid == start.pid and sent <= harm.began <= note.ended and start.time <= harm.ended for harm in harms
    )


def _is_guilty(note: Note, start: Start | None, harms: list[Harm], deaths: list[Harm]) -> bool:
    """True if the request was on a worker that was harmed, also if it was sent to the worker but
    not begun."""
    if start is not None:
        return any(harm.pid == start.pid and _overlaps(harm, start.time, note.ended) for harm in harms)
    began = note.sent if note.sent is not None else note.opened
    return any(_overlaps(harm, began, note.ended) for harm in deaths)


def _may_be_cut(note: Note, start: Start | None, evidence: Evidence) -> bool:
    if any(_overlaps(death, note.opened, note.ended) for death in evidence.front_deaths):
        return True
    streamed = note.kind in ("streamed", "leave stream")
    return streamed and start is not None and _is_guilty(note, start, evidence.harms, evidence.harms)


def _overlaps(harm: Harm, began: float, ended: float) -> bool:
    return harm.began <= ended and began <= harm.ended
