"""The pause between the death of a process and the start of the next one. It grows with each death
in a row.

Counts and pauses only: ``children.py`` decides which death belongs to which series, and when the
count is too high. Runs in the supervisor process, and in the server with worker threads.
"""

from __future__ import annotations

# The command gives up at this many deaths in a row of workers that were not ready, and after this
# many replacements of fronts to which no worker had connected.
MAX_EARLY_DEATHS = 5
# Seconds before the first, second, … attempt after a death of a worker that was not ready.
BACK_OFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
# A death within this many seconds (of a worker after it was ready, of a front after its start)
# counts as one of a series. The first process of a series is replaced at once, the others after a
# pause.
STEADY = 10.0
CRASH_BACK_OFF = BACK_OFF[:4]


class Series:
    """Deaths in a row of one kind."""

    def __init__(self, *pauses: float) -> None:
        """``pauses``: seconds after the first, second, … death. The last pause holds for all later
        deaths."""
        self._pauses = pauses
        self.count = 0

    def add(self) -> float:
        """Count one more death. Returns the pause before the next start, in seconds."""
        self.count += 1
        return self._pauses[min(self.count, len(self._pauses)) - 1]

    def end(self) -> None:
        """End the series, because a process has lived: the next death is the first of another
        series."""
        self.count = 0


class Fronts:
    """The deaths of fronts. After deaths soon after the start the next front waits; the command
    gives up when several fronts in a row died before a worker had connected to them."""

    def __init__(self) -> None:
        self._young_deaths = Series(0.0, *CRASH_BACK_OFF)
        self._since = 0.0
        # How many fronts in a row died before a worker had connected. The supervisor sets this to 0
        # when a worker has connected.
        self.useless = 0

    def begin(self, now: float) -> None:
        """Note that a front has been started."""
        self._since = now

    def end(self, now: float) -> float:
        """Count the death of the front. Returns the pause before the next one, in seconds."""
        if now - self._since >= STEADY:
            self._young_deaths.end()
            self.useless = 0
        self.useless += 1
        return self._young_deaths.add()
