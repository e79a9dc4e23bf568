"""The scoring time-out: a timer that interrupts run() on the main thread (contract section 8).

Owns the signal handler; ``src/worker/call.rs`` arms and disarms around each call. Runs in worker processes. The timer
covers run() only, and a script that sets ITIMER_REAL or SIGALRM itself takes it over, as it always could.
"""

from __future__ import annotations

import signal


def install() -> None:
    """Take SIGALRM. Before the script is loaded, so that a script which wants the signal for itself wins."""
    signal.signal(signal.SIGALRM, _strike)


def arm(seconds: float) -> None:
    """Interrupt the main thread in so many seconds; 0 disarms. Raises ``signal.ItimerError`` for negative values."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _strike(number: int, frame: object) -> None:
    raise TimeoutError("the scoring time-out is over")
