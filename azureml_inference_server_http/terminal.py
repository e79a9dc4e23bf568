"""The controlling terminal: whether a SIGHUP means that it is lost, or orders to replace the workers.

Both arrive as the same signal; even the sender does not tell them apart, as a shell that loses its terminal sends it to
its jobs. What tells is the terminal: it is lost within the same moment. Runs in the supervisor, and in the server with
worker threads.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time

# Seconds between the loss of the terminal and SIGHUP for it. Later ones are orders.
MOMENT = 3.0
GONE = "The terminal is gone, and the server ends. To keep it after that, start it with nohup or setsid."


class Terminal:
    """The terminal that the command was started from, if there was one."""

    def __init__(self) -> None:
        # nohup makes SIGHUP ignored: the server must outlive the terminal.
        self.is_ignored = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        # For ``poll`` without any event, which then reports the loss alone. None without a terminal, or after it.
        self.descriptor: int | None = None
        self._lost_at: float | None = None
        # ``watch`` and another thread may note the loss at the same time.
        self._lock = threading.Lock()
        if hasattr(select, "poll"):
            # Services, containers without a terminal and processes after setsid have none.
            with contextlib.suppress(OSError):
                self.descriptor = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)

    def look(self) -> None:
        """Note the loss. Call this when ``poll`` has reported the descriptor, or SIGHUP has come."""
        with self._lock:
            if self.descriptor is None:
                return
            poll = select.poll()
            poll.register(self.descriptor, 0)
            if poll.poll(0):
                self.close()
                self._lost_at = time.monotonic()

    def watch(self) -> None:
        """Wait until the terminal is lost, and note it. For a thread of its own."""
        if self.descriptor is not None:
            poll = select.poll()
            poll.register(self.descriptor, 0)
            poll.poll()
            self.look()

    def has_hung_up(self) -> bool:
        """Whether a SIGHUP that has just come is about the terminal."""
        self.look()
        return self._lost_at is not None and time.monotonic() - self._lost_at < MOMENT

    def close(self) -> None:
        """Close the descriptor of the terminal. Children must call this."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
