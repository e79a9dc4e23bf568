"""The supervisor's loop: waits for events, passes them to the state machine, and has its actions
performed.

The decisions are in ``state.py``. ``processes.py`` (worker processes) or ``threads.py`` (worker
threads) waits for the events and performs the actions. If any of this code fails, the loop ends the
server. Runs in the supervisor process, and in the supervising thread of a server with worker
threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Protocol

from .. import _core
from ..launch.progress import Progress
from . import events
from .children import EXIT_FAILED
from .state import Supervisor

# Seconds to stop all children by the usual rules after the supervisor has failed. Then they are
# killed.
LAST_ATTEMPT = 5.0

_logger = logging.getLogger("azmlinfsrv")


class ChildEnded(BaseException):
    """Raised in a forked child when its work is done. Carries its exit code up to the main module.

    The stack of the child still has the supervisor's calls. With this exception the child leaves
    the main module like any Python program, so that Python runs the exit handlers of the script.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Performer(Protocol):
    """Watches the children, makes the events and performs the actions."""

    def wait(self, until: float | None) -> Iterator[events.Event]:
        """Sleep until something happens, or until the time ``until`` (seconds, monotonic). Yields
        the events.

        The caller must handle each event before it asks for the next one, because asking may reap
        another child, whose pid the system may then use again.
        """

    def perform(self, action: events.Action) -> events.Event | None:
        """Perform any action but Log, CountRestart and Finish. Returns the event that this has caused, if any."""

    def abandon(self) -> None:
        """Kill all children."""


def run(state: Supervisor, performer: Performer, progress: Progress | None = None) -> int:
    """Supervise until every child has ended. Returns the exit code. Draws ``progress`` meanwhile.

    If this code or the performer raises an exception, the children are stopped by the usual rules,
    because without a supervisor nobody would stop or replace them. If that fails as well, they are
    killed.
    """
    try:
        return _supervise(state, performer, events.Started(), progress=progress)
    except ChildEnded:
        # This process is a child that the performer has forked, and is exiting.
        raise
    except BaseException:
        _logger.critical("The supervisor failed. The server ends.", exc_info=True)
    try:
        return _supervise(state, performer, events.Failed(), time.monotonic() + LAST_ATTEMPT) or EXIT_FAILED
    except BaseException:
        _logger.critical("The supervisor failed again. It kills what is left.", exc_info=True)
    performer.abandon()
    return EXIT_FAILED


def _supervise(
    state: Supervisor,
    performer: Performer,
    first: events.Event,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> int:
    """Handle the event ``first`` and all later ones until a Finish action. Returns the code of that
    action."""
    code = _handle(state, performer, first)
    while code is None:
        look = progress.next_look() if progress else None
        planned = [at for at in (state.next_wakeup(), deadline, look) if at is not None]
        for event in performer.wait(min(planned, default=None)):
            code = _first(code, _handle(state, performer, event))
        code = _first(code, _handle(state, performer, events.Tick()))
        if progress:
            progress.draw()
        if deadline is not None and time.monotonic() >= deadline and code is None:
            raise TimeoutError(f"children were left after {LAST_ATTEMPT:g} s")
    return code


def _handle(state: Supervisor, performer: Performer, event: events.Event) -> int | None:
    """Handle an event, and the events that its actions cause. Returns the code of a Finish action,
    if there was one."""
    code = None
    actions = state.handle(event, time.monotonic())
    _core.set_starting_workers(state.starting_workers)
    for action in actions:
        if isinstance(action, events.Finish):
            code = action.code
        elif isinstance(action, events.Log):
            _logger.log(getattr(logging, action.level.upper()), "%s", action.text)
        elif isinstance(action, events.CountRestart):
            _core.count_restart(action.reason)
        else:
            followed = performer.perform(action)
            if followed is not None:
                code = _first(code, _handle(state, performer, followed))
    return code


def _first(code: int | None, other: int | None) -> int | None:
    return other if code is None else code
