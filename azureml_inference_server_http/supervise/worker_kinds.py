"""The differences between worker processes and worker threads: their abilities, and their names in
messages.

Data only. ``state.py`` reads it, and apart from it decides by the same rules for processes and
threads.
"""

from __future__ import annotations

import signal
from typing import Callable, NamedTuple


class Kind(NamedTuple):
    """One kind of worker."""

    # True: a template loads the script once, and every worker is started from it. False: each
    # worker loads the script.
    has_template: bool
    # Why the script cannot be loaded again while the old one serves, so that HUP cannot replace the
    # workers: a clause for the log. None if it can.
    fixed_by: str | None
    # True if another front can follow on the same listeners when the front has failed.
    can_replace_front: bool
    # True if SIGKILL ends a worker. A worker that cannot be killed is left behind, and may return
    # later.
    can_kill: bool
    # Seconds between the order to hurry and the kill when the graceful timeout is over. A worker
    # process logs in this time what its script has not finished.
    last_words: float
    # Makes the name of a worker for messages.
    name: Callable[[int], str]
    # Makes the verb phrase for messages about a worker that has ended with this code.
    describe_exit: Callable[[int], str]
    # Says in a log line what the supervisor does with a stuck worker: with one that serves, and
    # with one that retires.
    end_of_stuck: str
    end_of_stuck_retiring: str


def describe_signal(number: int) -> str:
    """The number of a signal, and its name if it has one."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def describe_exit(code: int) -> str:
    """Says how a process ended, as a verb phrase for messages to clients and logs."""
    return f"exited with code {code}" if code >= 0 else f"was killed by {describe_signal(-code)}"


def _describe_end_of_thread(code: int) -> str:
    if code < 0:
        return "did not return in time"
    return "ended unexpectedly" if code else "ended"


# Worker processes, each of which loads the script.
PROCESSES = Kind(
    has_template=False,
    fixed_by=None,
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
# The worker process of --debug_port, which has the port until it ends.
DEBUGGED_PROCESS = PROCESSES._replace(
    fixed_by="the new worker would need the port of --debug_port, which the old worker has until it ends. Restart the "
    "command, or let --debug_port 0 take another port for each worker"
)
# Worker threads. The main thread, which loads the script, is their template.
THREADS = Kind(
    has_template=True,
    fixed_by="replacing workers one by one needs --worker_class process",
    can_replace_front=False,
    can_kill=False,
    last_words=0.5,
    name=lambda number: f"Worker thread {number}",
    describe_exit=_describe_end_of_thread,
    end_of_stuck="A thread cannot be killed. Another one takes its place, and this one ends when its call returns.",
    end_of_stuck_retiring="A thread cannot be killed. It ends when its call returns.",
)
