"""What must hold when one call of run() is made for several requests (docs/batching.md): which
requests may run a second time.

Pure functions over the records, called by ``invariants.py``. Runs in the test process, when all
servers have ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from . import orders
from .evidence import Evidence, Violation
from .journal import Call, Start
from .subjects import LIMIT_MS, Calls
from .traffic import Note

# Calls of each kind whose answers are all compared with those of calls for each request alone, and the
# share of the others of which one answer is compared (docs/batching.md, "The check").
CHECKED, SAMPLED = 2, 50
# The kinds of calls of ``scripts/rows.py``: its rows have the keys of an echo, those of a reply or both; the
# requests have one row or several.
KINDS = 3 * 2
# A time limit begins a little before run().
LIMIT = LIMIT_MS / 1000 * 0.9


def of_second_run(note: Note, starts: list[Start], evidence: Evidence) -> Iterator[Violation]:
    """A request runs again only alone, after a call with others that failed or that is checked."""
    first, second = starts[:2]
    if len(starts) > 2 or not is_joint(first.call, evidence) or is_joint(second.call, evidence):
        yield Violation("a request runs once with others and once alone at most", note, f"began {starts}")
    elif first.pid != second.pid:
        yield Violation("a request runs again only in its own worker", note, f"began {starts}")
    elif first.call in evidence.journal.ends:
        if evidence.calls is Calls.BATCHED:
            yield Violation("only a failed call is made again for each request", note, f"began {starts}")
    elif not is_harmful(first.call, evidence) and second.time - first.time < LIMIT:
        yield Violation("a call for several fails only for a reason", note, f"began {starts}")


def of_checks(evidence: Evidence) -> Iterator[Violation]:
    """A worker makes only so many calls to compare answers."""
    if evidence.calls is not Calls.JOINED:
        return
    joint = [call for call in evidence.members if is_joint(call, evidence)]
    again = {starts[0].call for starts in evidence.journal.starts.values() if len(starts) > 1}
    checked = Counter(call.pid for call in joint if call in again and call in evidence.journal.ends)
    for pid, made in Counter(call.pid for call in joint).items():
        most = CHECKED * KINDS + made // SAMPLED
        if checked[pid] > most:
            detail = f"worker {pid} compared the answers of {checked[pid]} of {made} calls, at most {most} are due"
            yield Violation("few answers are compared", None, detail)


def is_joint(call: Call, evidence: Evidence) -> bool:
    return len(evidence.members[call]) > 1


def is_harmful(call: Call, evidence: Evidence) -> bool:
    """True if a request of the call makes it fail."""
    return any(evidence.kinds.get(id) in orders.HARMFUL for id in evidence.members[call])
