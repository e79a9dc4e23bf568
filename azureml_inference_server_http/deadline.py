"""The scoring time-out: a timer that interrupts run() on the main thread (contract section 8).

Owns the signal handler; ``src/worker/call.rs`` arms and disarms around each call. Runs in worker processes. The timer
covers run() only, and a script that sets ITIMER_REAL or SIGALRM itself takes it over, as it always could. A call that a
debugger holds is not interrupted, and the front is shown that it must not kill the worker for it.
"""

from __future__ import annotations

import logging
import signal
from types import FrameType

from . import debug, titles

_logger = logging.getLogger("azmlinfsrv")


class _Alarm:
    """The timer of this process, of which there is only one."""

    def __init__(self) -> None:
        # The name that the process had before a debugger held the call that runs.
        self._name: str | None = None

    def arm(self, first: float, then: float) -> None:
        """Look at the call in ``first`` seconds, or never if that is 0. If ``then`` is not 0 that look is only for
        debuggers, and the call is interrupted so many seconds later. Raises ``signal.ItimerError`` for negative
        values."""
        if self._name is not None:
            titles.set_name(self._name)
            self._name = None
        signal.setitimer(signal.ITIMER_REAL, first, then)

    def strike(self, number: int, frame: FrameType | None) -> None:
        """Signal handler."""
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
    """Take SIGALRM. Before the script is loaded, so that a script which wants the signal for itself wins."""
    signal.signal(signal.SIGALRM, _alarm.strike)
