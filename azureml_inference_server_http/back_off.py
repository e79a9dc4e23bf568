"""When a process that died is followed by the next one: at once, or after pauses that grow with each death in a row.

Counts and numbers only: ``supervisor.py`` decides which death belongs to which series, and what follows from its count.
Runs in the supervisor process.
"""

from __future__ import annotations

# So many workers in a row died before one was ready, or fronts before a worker had connected: the command gives up.
MAX_EARLY_DEATHS = 5
# Seconds before the first, second, … new attempt after early deaths.
BACK_OFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# A worker that dies within so many seconds of being ready, or a front of being started, may be one of a series: all
# but the first wait.
STEADY = 10.0
CRASH_BACK_OFF = BACK_OFF[:4]


class Series:
    """Deaths in a row of one kind."""

    def __init__(self, *pauses: float) -> None:
        """``pauses`` follow the first, second, … death; the last one follows all others as well."""
        self._pauses = pauses
        self.count = 0

    def add(self) -> float:
        """One more has died. Returns the pause before the next one, in seconds."""
        self.count += 1
        return self._pauses[min(self.count, len(self._pauses)) - 1]

    def end(self) -> None:
        """One has lived: the next death is the first of another series."""
        self.count = 0


class Fronts:
    """One front after the other. One that dies young is waited for; given up are those that serve nobody."""

    def __init__(self) -> None:
        self._young_deaths = Series(0.0, *CRASH_BACK_OFF)
        self._since = 0.0
        # So many in a row died before a worker had connected; the supervisor sets it to 0 when one has.
        self.useless = 0

    def begin(self, now: float) -> None:
        """One has been started."""
        self._since = now

    def end(self, now: float) -> float:
        """It has died. Returns the pause before the next one, in seconds."""
        if now - self._since >= STEADY:
            self._young_deaths.end()
            self.useless = 0
        self.useless += 1
        return self._young_deaths.add()
