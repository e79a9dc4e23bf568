"""The supervisor's events and actions: the types of all that it is told, and of all that it orders.

Data only. ``state.py`` decides which actions follow from an event. ``processes.py`` makes the
events and performs the actions for worker processes, ``threads.py`` for worker threads;
``supervising.py`` passes them on. Used in the supervisor process, and in the server with worker
threads.

``pid`` is a process id. With worker threads it is a number that ``threads.py`` gives to each
thread.
"""

from __future__ import annotations

import enum
import signal
from typing import NamedTuple, Union, get_args

from .control import Disconnected, Order, Ready, Released, keep_apart
from .control import Kill as KillWanted
from .control import Recycle as RecycleWanted

# The signals that the supervisor decides about. The numbers stand in for names that Windows lacks,
# because the decisions are the same there.
TERM, INT = int(signal.SIGTERM), int(signal.SIGINT)
HUP, QUIT, KILL, TTIN, TTOU = (
    int(getattr(signal, name, number))
    for name, number in (("SIGHUP", 1), ("SIGQUIT", 3), ("SIGKILL", 9), ("SIGTTIN", 21), ("SIGTTOU", 22))
)
# The signals to the command that become ``Signalled``, as far as this system has them. ``state.py`` decides what each
# does.
SIGNALS = tuple(
    int(getattr(signal, name))
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGBREAK", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGWINCH")
    if hasattr(signal, name)
)


class Role(enum.Enum):
    """The task of a child."""

    FRONT = "front"
    # Loads the script once. Workers are started from it.
    TEMPLATE = "template"
    WORKER = "worker"


# ---- Events. The reports of the front are events as well: ``Ready``, ``Disconnected``, ``KillWanted``,
# ``RecycleWanted``, ``Released``.


class Started(NamedTuple):
    """The first event: the listeners are open, so children can be started."""


class Spawned(NamedTuple):
    """A child that an action asked for runs now. ``template``: the template that has started this
    worker, if any."""

    pid: int
    role: Role
    template: int | None = None


class SpawnFailed(NamedTuple):
    """A child that an action asked for could not be started: the system is out of processes or
    memory, or the template that should have started it has ended."""

    role: Role
    reason: str
    template: int | None = None


class Loaded(NamedTuple):
    """A template has loaded the script, so workers can be started from it."""

    pid: int


class Exited(NamedTuple):
    """A child has ended. ``code`` is as in ``os.waitstatus_to_exitcode``: the exit code, or minus
    the signal number. ``is_oom``: the kernel has ended it, or another process of the container,
    because there was no memory."""

    pid: int
    code: int
    is_oom: bool = False


class Returned(NamedTuple):
    """A worker thread that was left behind has ended. An ``Exited`` was reported when it was left
    behind."""

    pid: int


class Stopped(NamedTuple):
    """A signal (``number``, for example SIGSTOP) has paused a child until it gets SIGCONT."""

    pid: int
    number: int


class Continued(NamedTuple):
    """A child that was paused by a signal runs again."""

    pid: int


class Signalled(NamedTuple):
    """The supervisor received a signal."""

    number: int


class FilesChanged(NamedTuple):
    """Files that the script consists of have changed (``--reload``). ``what`` names them, as the
    subject of a sentence."""

    what: str


class LoadFailed(NamedTuple):
    """A worker or template could not load the script; it ends with a fatal exit code now.

    ``where``: the place and the type of the error, for example ``score.py:12 ZeroDivisionError``.
    ``message``: the text of the error. Sent with ``--reload`` only.
    """

    pid: int
    where: str
    message: str


class HungUp(NamedTuple):
    """The terminal that the command was started from is gone. ``is_ignored``: the server continues
    (nohup)."""

    is_ignored: bool


class Failed(NamedTuple):
    """The supervisor itself has failed. The traceback has been logged."""


class Tick(NamedTuple):
    """Time has passed. Sent at ``Supervisor.next_wakeup`` at the latest, and perhaps earlier."""


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
    Disconnected,
    KillWanted,
    RecycleWanted,
    Released,
    Signalled,
    FilesChanged,
    LoadFailed,
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
    """Tell a template to end: it starts the workers that it was asked for, runs the script's exit
    code, and exits."""

    pid: int


class SpawnWorker(NamedTuple):
    """Start a worker from this template. If it is None, the supervisor forks the worker, which
    loads the script. ``slot`` is the worker's number for ``--worker_env``."""

    template: int | None = None
    slot: int = 0


class Kill(NamedTuple):
    """Send a signal to a child. A thread cannot be killed: for SIGKILL it is left behind."""

    pid: int
    number: int


class TellFront(NamedTuple):
    """Send an order to the front."""

    order: Order


class Log(NamedTuple):
    """Write a record by logger ``azmlinfsrv``; ``level`` is its name in lower case."""

    level: str
    text: str


class CountRestart(NamedTuple):
    """Count a worker that is replaced. ``reason`` is one of those of
    ``azmlinfsrv_worker_restarts_total``."""

    reason: str


class Finish(NamedTuple):
    """End the command with this exit code, because every child has ended."""

    code: int


Action = Union[SpawnFront, SpawnTemplate, ReleaseTemplate, SpawnWorker, Kill, TellFront, Log, CountRestart, Finish]

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
    "CountRestart",
    "Disconnected",
    "Event",
    "Exited",
    "Failed",
    "FilesChanged",
    "Finish",
    "HungUp",
    "Kill",
    "KillWanted",
    "LoadFailed",
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
