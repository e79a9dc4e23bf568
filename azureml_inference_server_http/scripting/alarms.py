"""Calls functions when a time is over, with one timer of the event loop for all of them.

Nearly all time limits are taken back before their time, because their calls return. A timer of the loop for each would
take a tenth of what a short call costs: asyncio sorts timers, and keeps those that are cancelled. Runs on the thread of
the event loop.
"""

from __future__ import annotations

import asyncio
from typing import Any, Callable, NamedTuple


class Alarm(NamedTuple):
    """``act`` is called with ``due`` and ``arguments``, when the loop's time is ``due``."""

    due: float
    act: Callable[..., None]
    arguments: tuple[Any, ...]


class Alarms:
    """At most one alarm for each number."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._alarms: dict[int, Alarm] = {}
        # Rings when the first alarm that was set is due, which may have been dropped since.
        self._timer: asyncio.TimerHandle | None = None

    def set(self, number: int, seconds: float, act: Callable[..., None], *arguments: Any) -> None:
        """Call ``act`` in this many seconds, instead of what was set for this number before."""
        due = self._loop.time() + seconds
        self._alarms[number] = Alarm(due, act, arguments)
        if self._timer is None or due < self._timer.when():
            self._wake_at(due)

    def drop(self, number: int) -> None:
        """Forget the alarm of this number, if it has one."""
        self._alarms.pop(number, None)

    def _wake_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._ring, due)

    def _ring(self, due: float) -> None:
        """Call what is due. A loop may call this a little before the time."""
        self._timer = None
        now = max(due, self._loop.time())
        try:
            for number in [number for number, alarm in self._alarms.items() if alarm.due <= now]:
                alarm = self._alarms.get(number)
                if alarm is None or alarm.due > now:
                    continue  # what was called before it has dropped it, or set it anew
                del self._alarms[number]
                alarm.act(alarm.due, *alarm.arguments)
        finally:
            first = min((alarm.due for alarm in self._alarms.values()), default=None)
            if first is not None and (self._timer is None or first < self._timer.when()):
                self._wake_at(first)
