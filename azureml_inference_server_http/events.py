"""What the supervisor is told, and what it orders: the words between its decisions and those who carry them out.

Owns data only. ``supervisor.py`` decides which action follows from which event. ``process.py`` makes the events and
performs the actions for worker processes, ``threads.py`` for worker threads, ``supervising.py`` passes them on. Used in
the supervisor process, and in the server with worker threads.

``pid`` is the number of a process. Threads have numbers of their own (``threads.py``).
"""

from __future__ import annotations

import enum
import signal
from typing import NamedTuple, Union, get_args

from .control import Kill as KillWanted
from .control import Order, Ready, Released, keep_apart
from .control import Recycle as RecycleWanted

# The signals that decisions are about. Windows has few of the names, but the same decisions.
TERM, INT = int(signal.SIGTERM), int(signal.SIGINT)
HUP, QUIT, KILL, TTIN, TTOU = (
    int(getattr(signal, name, number))
    for name, number in (("SIGHUP", 1), ("SIGQUIT", 3), ("SIGKILL", 9), ("SIGTTIN", 21), ("SIGTTOU", 22))
)


class Role(enum.Enum):
    """What a child is for."""

    FRONT = "front"
    # Loads the script once, for workers that are started from it.
    TEMPLATE = "template"
    WORKER = "worker"


# ---- Events. What the front reports is one as well: ``Ready``, ``KillWanted``, ``RecycleWanted``, ``Released``.


class Started(NamedTuple):
    """The listeners are open."""


class Spawned(NamedTuple):
    """A child that an action asked for runs. ``template``: the one that a worker was started from, if any."""

    pid: int
    role: Role
    template: int | None = None


class SpawnFailed(NamedTuple):
    """A child that an action asked for could not be started: the system is out of processes or memory, or the template
    that was to start it has ended."""

    role: Role
    reason: str
    template: int | None = None


class Loaded(NamedTuple):
    """This template has loaded the script: workers can be started from it."""

    pid: int


class Exited(NamedTuple):
    """A child has ended. ``code``: as in ``os.waitstatus_to_exitcode``, so it is negative for a signal."""

    pid: int
    code: int


class Returned(NamedTuple):
    """A child that was told to have exited, as it cannot be killed, has really ended. Of threads only."""

    pid: int


class Stopped(NamedTuple):
    """A child does nothing until it is continued: job control, not the end of it."""

    pid: int
    number: int


class Continued(NamedTuple):
    """A child that was stopped goes on."""

    pid: int


class Signalled(NamedTuple):
    """The supervisor received a signal."""

    number: int


class HungUp(NamedTuple):
    """The terminal that the command was started from is gone; ``is_ignored``: the command is to outlive it (nohup)."""

    is_ignored: bool


class Failed(NamedTuple):
    """The supervisor itself has failed, which has been logged."""


class Tick(NamedTuple):
    """The time of ``Supervisor.next_wakeup`` may have come."""


Event = Union[
    Started,
    Spawned,
    SpawnFailed,
    Loaded,
    Exited,
    Returned,
    Stopped,
    Continued,
    Ready,
    KillWanted,
    RecycleWanted,
    Released,
    Signalled,
    HungUp,
    Failed,
    Tick,
]

# ---- Actions


class SpawnFront(NamedTuple):
    """Start a front."""


class SpawnTemplate(NamedTuple):
    """Start a template, which loads the script."""


class ReleaseTemplate(NamedTuple):
    """Let a template start the workers that it was asked for before, do what the script has to do at its end, and
    exit."""

    pid: int


class SpawnWorker(NamedTuple):
    """Start a worker from this template; None: from the supervisor, and the worker loads the script itself."""

    template: int | None = None


class Kill(NamedTuple):
    """Send a signal to a child. A thread, which cannot be killed, is left behind for SIGKILL."""

    pid: int
    number: int


class TellFront(NamedTuple):
    """Send an order to the front."""

    order: Order


class Log(NamedTuple):
    """Write a record by logger ``azmlinfsrv``; ``level`` is its name in lower case."""

    level: str
    text: str


class Finish(NamedTuple):
    """Every child is gone: end the command with this code."""

    code: int


Action = Union[SpawnFront, SpawnTemplate, ReleaseTemplate, SpawnWorker, Kill, TellFront, Log, Finish]

keep_apart((*get_args(Event), *get_args(Action)))

__all__ = [
    "HUP",
    "INT",
    "KILL",
    "QUIT",
    "TERM",
    "TTIN",
    "TTOU",
    "Action",
    "Continued",
    "Event",
    "Exited",
    "Failed",
    "Finish",
    "HungUp",
    "Kill",
    "KillWanted",
    "Loaded",
    "Log",
    "Ready",
    "RecycleWanted",
    "ReleaseTemplate",
    "Released",
    "Returned",
    "Role",
    "Signalled",
    "SpawnFailed",
    "SpawnFront",
    "SpawnTemplate",
    "SpawnWorker",
    "Spawned",
    "Started",
    "Stopped",
    "TellFront",
    "Tick",
]
