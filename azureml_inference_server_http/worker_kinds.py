"""What workers of a kind can do, and how messages call them: all that differs for the supervisor's decisions.

Data only, which ``supervisor.py`` reads: it decides by the same rules for processes and for threads.
"""

from __future__ import annotations

import signal
from typing import Callable, NamedTuple


class Kind(NamedTuple):
    """One kind of worker."""

    # A template loads the script once, and every worker is started from it. If not, each worker loads the script.
    has_template: bool
    # The script can be loaded again while the old one serves, so HUP can replace the workers.
    can_reload: bool
    # A front that has failed can be followed by another one on the same listeners.
    can_replace_front: bool
    # SIGKILL ends a worker. If not, a worker that does not return is left behind, and may return at any time.
    can_kill: bool
    # Seconds that a worker has between "hurry" and its forced end: one that can be told so says what is left undone.
    last_words: float
    # How messages call a worker, and how they say that it ended with this code.
    name: Callable[[int], str]
    describe_exit: Callable[[int], str]
    # What follows when a worker does not return, and when one does not that retires.
    end_of_stuck: str
    end_of_stuck_retiring: str


def describe_signal(number: int) -> str:
    """A signal by number, and by name if it has one."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def describe_exit(code: int) -> str:
    """How a process ended, as a verb phrase for messages to clients and logs."""
    return f"exited with code {code}" if code >= 0 else f"was killed by {describe_signal(-code)}"


def _describe_end_of_thread(code: int) -> str:
    if code < 0:
        return "did not return in time"
    return "ended unexpectedly" if code else "ended"


# Worker processes, each of which loads the script.
PROCESSES = Kind(
    has_template=False,
    can_reload=True,
    can_replace_front=True,
    can_kill=True,
    last_words=1.5,
    name=lambda pid: f"Worker (pid:{pid})",
    describe_exit=describe_exit,
    end_of_stuck="It is killed and replaced.",
    end_of_stuck_retiring="It is killed.",
)
# Worker processes that are forked from a template process (WORKER_PRELOAD).
PRELOADED_PROCESSES = PROCESSES._replace(has_template=True)
# Worker threads. The main thread, which loads the script, is their template.
THREADS = Kind(
    has_template=True,
    can_reload=False,
    can_replace_front=False,
    can_kill=False,
    last_words=0.5,
    name=lambda number: f"Worker thread {number}",
    describe_exit=_describe_end_of_thread,
    end_of_stuck="A thread cannot be killed: another one takes its place, and this one ends when its call returns.",
    end_of_stuck_retiring="A thread cannot be killed: it ends when its call returns.",
)
