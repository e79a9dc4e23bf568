"""The supervisor's loop: what happens becomes events, the decisions become actions, and a failure ends the server.

Owns no decision (``supervisor.py``) and touches nothing of the system: whoever performs the actions does that
(``process.py`` for worker processes, ``threads.py`` for worker threads). Runs in the supervisor process, and in the
supervising thread of a server with worker threads.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Protocol

from . import events
from .children import EXIT_FAILED
from .supervisor import Supervisor

# Seconds for an end in good order after the supervisor has failed. It takes less unless the supervisor fails again.
LAST_ATTEMPT = 5.0

_logger = logging.getLogger("azmlinfsrv")


class ChildEnded(BaseException):
    """Carries the exit code of a forked child out of the code that its parent was running.

    The child leaves the main module like any Python program, so what the script has registered for the end happens.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Performer(Protocol):
    """Whoever watches the children and carries out the actions."""

    def wait(self, until: float | None) -> Iterator[events.Event]:
        """Sleep until something happens, or until this time (seconds, monotonic) if it is not None; what has happened.

        Each event must be handled before the next one is looked for: only then the pids in it are still valid.
        """

    def perform(self, action: events.Action) -> events.Event | None:
        """Carry out any action but Log and Finish. Returns what has happened by that, if anything."""

    def abandon(self) -> None:
        """End all children at once and without asking anyone."""


def run(state: Supervisor, performer: Performer) -> int:
    """Supervise until every child has ended. Returns the exit code.

    Without a supervisor nobody would end or replace the children. So if this code or the performer fails, the children
    are ended in good order; if that fails as well, they are killed.
    """
    try:
        return _supervise(state, performer, events.Started())
    except ChildEnded:
        # Not the supervisor any more, but a child of it that is at its end.
        raise
    except BaseException:
        _logger.critical("The supervisor failed. The server ends.", exc_info=True)
    try:
        return _supervise(state, performer, events.Failed(), time.monotonic() + LAST_ATTEMPT) or EXIT_FAILED
    except BaseException:
        _logger.critical("The supervisor failed again. It kills what is left.", exc_info=True)
    performer.abandon()
    return EXIT_FAILED


def _supervise(state: Supervisor, performer: Performer, first: events.Event, deadline: float | None = None) -> int:
    """Handle this event and all that follow, until a Finish action; its code."""
    code = _handle(state, performer, first)
    while code is None:
        planned = [at for at in (state.next_wakeup(), deadline) if at is not None]
        for event in performer.wait(min(planned, default=None)):
            code = _first(code, _handle(state, performer, event))
        code = _first(code, _handle(state, performer, events.Tick()))
        if deadline is not None and time.monotonic() >= deadline and code is None:
            raise TimeoutError(f"children were left after {LAST_ATTEMPT:g} s")
    return code


def _handle(state: Supervisor, performer: Performer, event: events.Event) -> int | None:
    """Handle an event and what follows from it. Returns the code of a Finish action."""
    code = None
    for action in state.handle(event, time.monotonic()):
        if isinstance(action, events.Finish):
            code = action.code
        elif isinstance(action, events.Log):
            _logger.log(getattr(logging, action.level.upper()), "%s", action.text)
        else:
            followed = performer.perform(action)
            if followed is not None:
                code = _first(code, _handle(state, performer, followed))
    return code


def _first(code: int | None, other: int | None) -> int | None:
    return other if code is None else code
