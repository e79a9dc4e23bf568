"""What the supervisor is told, and what it orders: the words between the state machine and the operating system.

Owns data only. ``process.py`` makes the events and performs the actions, ``supervisor.py`` decides which action follows
from which event. Used in the supervisor process.
"""

from __future__ import annotations

from typing import NamedTuple, Union

# ---- Events


class Started(NamedTuple):
    """The listeners are open."""


class Spawned(NamedTuple):
    """A process that an action asked for runs."""

    pid: int
    is_front: bool


class SpawnFailed(NamedTuple):
    """A process that an action asked for could not be forked: the system is out of processes or memory."""

    is_front: bool
    reason: str


class Exited(NamedTuple):
    """A child has been reaped; ``code`` as in ``os.waitstatus_to_exitcode``: negative for a signal."""

    pid: int
    code: int


class Stopped(NamedTuple):
    """A child does nothing until it is continued: job control, not the end of it."""

    pid: int
    number: int


class Continued(NamedTuple):
    """A child that was stopped goes on."""

    pid: int


class Ready(NamedTuple):
    """The front says that this worker takes jobs."""

    pid: int


class KillWanted(NamedTuple):
    """The front says that this worker is stuck."""

    pid: int
    reason: str


class RecycleWanted(NamedTuple):
    """The front says that this worker has served its time, or has grown too large; once for each worker."""

    pid: int
    reason: str
    too_large: bool


class Released(NamedTuple):
    """The front has answered every request after ``drain``, and lets the workers go."""


class PreloadFailed(NamedTuple):
    """The script could not be started in this process, before any worker was forked (WORKER_PRELOAD)."""


class Signalled(NamedTuple):
    """The supervisor received a signal."""

    number: int


class HungUp(NamedTuple):
    """The terminal that the command was started from is gone; ``is_ignored``: the command is to outlive it (nohup)."""

    is_ignored: bool


class Tick(NamedTuple):
    """The time of ``Supervisor.next_wakeup`` has come."""


Event = Union[
    Started,
    Spawned,
    SpawnFailed,
    Exited,
    Stopped,
    Continued,
    Ready,
    KillWanted,
    RecycleWanted,
    Released,
    PreloadFailed,
    Signalled,
    HungUp,
    Tick,
]

# ---- Actions


class SpawnFront(NamedTuple):
    """Fork a front."""


class SpawnWorker(NamedTuple):
    """Fork a worker."""


class Kill(NamedTuple):
    """Send a signal to a child."""

    pid: int
    number: int


class TellFront(NamedTuple):
    """Send a line to the front; ``src/control.rs`` lists the verbs."""

    line: str


class Log(NamedTuple):
    """Write a record by logger ``azmlinfsrv``; ``level`` is its name in lower case."""

    level: str
    text: str


class Finish(NamedTuple):
    """Every child is gone: end the command with this code."""

    code: int


Action = Union[SpawnFront, SpawnWorker, Kill, TellFront, Log, Finish]
