"""What must hold whatever was killed: finds every request that has a reason to complain.

Pure functions over the clients' notes, the scripts' journals and the monkey's diary. Runs in the
test process, when all servers have ended.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import joint_calls, orders
from .evidence import NEW_FRONT, SLACK, Evidence, Violation
from .journal import Start
from .monkey import Harm
from .subjects import Calls
from .traffic import Note


def violations(evidence: Evidence) -> Iterator[Violation]:
    """All violations of one server."""
    known = {note.id for note in evidence.notes}
    for id, starts in evidence.journal.starts.items():
        if id not in known:
            yield Violation("only what was sent is run", None, f"{id} was run by {starts}")
    for note in evidence.notes:
        starts = evidence.journal.starts.get(note.id, []) if note.id else []
        if len(starts) > 1:
            if evidence.calls.for_several:
                yield from joint_calls.of_second_run(note, starts, evidence)
            else:
                yield Violation("no request runs twice", note, f"began {starts}")
        yield from _of_outcome(note, starts, evidence)
    yield from joint_calls.of_checks(evidence)


def _of_outcome(note: Note, starts: list[Start], evidence: Evidence) -> Iterator[Violation]:
    start = starts[0] if starts else None
    if note.outcome in (orders.WRONG, orders.SILENT):
        yield Violation("every request gets one complete answer", note, note.text)
    elif note.outcome == orders.ANSWERED and start is None:
        yield Violation("an answer comes from run()", note, "it never ran")
    elif note.outcome == orders.ANSWERED and not _has_result(note, starts, evidence):
        yield Violation("an answer comes from run()", note, f"no call for it ended: {starts}")
    elif note.outcome == orders.REFUSED and start is not None:
        yield Violation("what is refused is not run", note, f"refused with {note.text}, and began {start}")
    elif note.outcome == orders.LEFT:
        yield from _of_leaver(note, start, evidence)
    elif note.outcome == orders.FAILED and not _is_guilty(note, start, evidence):
        yield Violation("only a request on a lost worker fails", note, f"{note.text} (began: {start})")
    elif note.outcome == orders.CUT and not _may_be_cut(note, start, evidence):
        yield Violation("a connection is cut only with its front or its stream's worker", note, note.text)


def _has_result(note: Note, starts: list[Start], evidence: Evidence) -> bool:
    return note.kind in orders.HARMFUL or any(start.call in evidence.journal.ends for start in starts)


def _of_leaver(note: Note, start: Start | None, evidence: Evidence) -> Iterator[Violation]:
    if start is None:
        return
    if note.sent is None:
        yield Violation("half a request is not run", note, f"began {start}")
    elif start.time > note.ended + SLACK and not _may_begin_late(note, start, evidence):
        late = start.time - note.ended
        yield Violation("a client that left is not served", note, f"its request began {late:.2f} s after it had left")
    elif evidence.calls is Calls.AT_ONCE:
        late = evidence.journal.ends.get(start.call, 0.0) - note.ended
        if late > SLACK and not _is_harmed(note, start, evidence.harms):
            yield Violation("a call is cancelled when its client leaves", note, f"it ended {late:.2f} s later")


def _may_begin_late(note: Note, start: Start, evidence: Evidence) -> bool:
    """True if its worker was stopped, or no front was there to learn that the client had left."""
    if _was_begun_and_stopped(note, start, evidence.harms):
        return True
    return any(note.opened - NEW_FRONT <= death.began <= note.ended for death in evidence.front_deaths)


def _was_begun_and_stopped(note: Note, start: Start, harms: list[Harm]) -> bool:
    """True if its worker was stopped while the client was connected, perhaps between claiming the
    request and calling run()."""
    sent = note.opened if note.sent is None else note.sent
    return any(
        harm.pid == start.pid and sent <= harm.began <= note.ended and start.time <= harm.ended for harm in harms
    )


def _is_guilty(note: Note, start: Start | None, evidence: Evidence) -> bool:
    """True if the request was on a worker that was harmed, also if it was sent to the worker but
    not begun. A worker that runs several requests may be harmed by the order of another one."""
    if start is not None:
        return _is_harmed(note, start, evidence.harms if evidence.calls is Calls.ONE_BY_ONE else evidence.deaths)
    began = note.sent if note.sent is not None else note.opened
    return any(_overlaps(harm, began, note.ended) for harm in evidence.deaths)


def _is_harmed(note: Note, start: Start, harms: list[Harm]) -> bool:
    return any(harm.pid == start.pid and _overlaps(harm, start.time, note.ended) for harm in harms)


def _may_be_cut(note: Note, start: Start | None, evidence: Evidence) -> bool:
    if any(_overlaps(death, note.opened, note.ended) for death in evidence.front_deaths):
        return True
    return note.kind in orders.STREAMS and start is not None and _is_guilty(note, start, evidence)


def _overlaps(harm: Harm, began: float, ended: float) -> bool:
    return harm.began <= ended and began <= harm.ended
