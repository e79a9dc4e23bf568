"""Finds out when an async script blocks its event loop, and tells where.

While one call blocks the loop, no other call goes on. A thread looks once a second if the loop still runs, and when it
has been blocked for ``LIMIT`` seconds, and logs the stack of the code that keeps it from running. Runs in worker
processes with an async run().
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback

from ..supervise import titles
from . import debug

# Seconds between two looks, and seconds that the loop may be blocked until that is told.
LOOK_EVERY = 1.0
LIMIT = 3.0

_logger = logging.getLogger("azmlinfsrv")


class BlockedLoop:
    """Watches the event loop of this thread, which must be run for less than a second at a time."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        # When the loop was last seen to run; None while it need not.
        self._seen: float | None = None
        # True if the present block was logged.
        self._is_told = False
        # The name of the process before a debugger held it.
        self._name: str | None = None
        self._watcher: threading.Thread | None = None

    def begin(self) -> None:
        """The loop begins to run."""
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="azmlinfsrv-blocked-loop", daemon=True)
            self._watcher.start()
        self._seen = time.monotonic()

    def end(self) -> None:
        """The loop has returned."""
        seen, self._seen = self._seen, None
        if self._name is not None:
            titles.set_name(self._name)
            self._name = None
        elif seen is not None:
            seconds = time.monotonic() - seen
            if self._is_told:
                _logger.warning("The event loop runs again. It was blocked for %.1f seconds.", seconds)
            elif seconds > LIMIT + 2 * LOOK_EVERY:
                _logger.warning(
                    "The event loop was blocked for %.1f seconds. Its stack is not known, because native code did not "
                    "let other threads run, or the process was stopped.",
                    seconds,
                )
        self._is_told = False

    def is_debugged(self) -> bool:
        """True if a debugger holds this process, so that no limit applies."""
        return debug.holds(sys._getframe())

    def look(self, now: float) -> None:
        """Log the stack of a loop that is blocked, once for each block."""
        seen = self._seen
        if seen is None or self._is_told or self._name is not None or now - seen < LOOK_EVERY:
            return
        frame = sys._current_frames().get(self._thread)
        if debug.holds(frame):
            # The front reads the name, and then lets no limit end this worker.
            self._name = titles.get_name()
            titles.set_name(titles.DEBUGGED)
            _logger.warning(debug.NO_LIMIT)
        elif now - seen >= LIMIT:
            self._is_told = True
            _logger.warning(
                "The event loop has been blocked for %.1f seconds, and no other call can go on. Code that takes long "
                "belongs into asyncio.to_thread(). This is where it is:\n%s",
                now - seen,
                "".join(traceback.format_stack(frame)[-12:]).rstrip(),
            )

    def _watch(self) -> None:
        while True:
            before = time.monotonic()
            time.sleep(pause(self._seen, before))
            now = time.monotonic()
            # After a longer pause, for whatever reason, the loop must get its turn first.
            if now - before < 2 * LOOK_EVERY:
                self.look(now)


def pause(seen: float | None, now: float) -> float:
    """Seconds until the next look. A loop that was last seen to run at ``seen`` is looked at when it has been blocked
    for ``LIMIT`` seconds: otherwise a block of 3.9 seconds may be over before the next look."""
    left = LOOK_EVERY if seen is None else seen + LIMIT - now
    return left if 0 < left < LOOK_EVERY else LOOK_EVERY
