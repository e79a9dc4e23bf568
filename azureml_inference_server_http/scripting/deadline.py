"""The scoring timeout: a timer whose signal interrupts run() on the main thread (contract section
8).

Owns the signal handler. ``src/worker/call.rs`` starts the timer before each call of run() and stops
it afterwards. A script that sets ITIMER_REAL or SIGALRM itself replaces the timer, as with 1.5.1.
If a debugger holds the call, the timer does not interrupt it, and the name of the process shows the
front that it must not have the worker killed. Runs in worker processes.
"""

from __future__ import annotations

import logging
import signal
from types import FrameType

from ..supervise import titles
from . import debug

_logger = logging.getLogger("azmlinfsrv")


class _Alarm:
    """The timer. A process has only one, because the system has one ITIMER_REAL for each
    process."""

    def __init__(self) -> None:
        # The name of the process before it was changed because a debugger holds the running call;
        # None otherwise.
        self._name: str | None = None

    def arm(self, first: float, then: float) -> None:
        """Start the timer, or stop it if ``first`` is 0. Raises ``signal.ItimerError`` for negative
        values.

        If ``then`` is 0, the call is interrupted after ``first`` seconds. Otherwise the timer only
        looks for a debugger after ``first`` seconds, and interrupts the call ``then`` seconds
        later.
        """
        if self._name is not None:
            titles.set_name(self._name)
            self._name = None
        signal.setitimer(signal.ITIMER_REAL, first, then)

    def strike(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: raise TimeoutError in the call, unless a debugger holds it or this is the
        first look."""
        rest, then = signal.getitimer(signal.ITIMER_REAL)
        if debug.holds(frame):
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._name = titles.get_name()
            titles.set_name(titles.DEBUGGED)
            _logger.warning(debug.NO_LIMIT)
        elif then:
            signal.setitimer(signal.ITIMER_REAL, rest)
        else:
            raise TimeoutError("the scoring time-out is over")


_alarm = _Alarm()
arm = _alarm.arm


def install() -> None:
    """Install the handler of SIGALRM. Call this before the script is loaded, so that a script can
    replace it."""
    signal.signal(signal.SIGALRM, _alarm.strike)
