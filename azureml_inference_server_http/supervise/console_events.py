"""Windows: makes a signal of what the console reports to its programs, so that the server drains.

The events are Ctrl-Break, a console window that is closed, a user who logs off, and a shutdown, which is also what
``docker stop`` sends to a Windows container. The C library would make SIGBREAK of them as well, but Windows ends the
process as soon as the handler of any but the first has returned: the handler here does not return from those. Ctrl-C is
left to Python. Runs in the server with worker threads, which is all there is on Windows.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any, Callable

CTRL_C, CTRL_BREAK = 0, 1
# Keeps the callback alive for as long as Windows may call it.
_kept: list[Any] = []


def handler(raise_break: Callable[[], None], wait_for_ever: Callable[[], object]) -> Callable[[int], bool]:
    """The function that Windows calls with the number of an event, in a thread of its own. It returns True if it has
    handled the event."""

    def handle(event: int) -> bool:
        if event == CTRL_C:
            return False
        raise_break()
        if event != CTRL_BREAK:
            # Windows ends the process after its own limit: 5 seconds for a window and for a container, unless the
            # registry says otherwise (docs/windows.md).
            wait_for_ever()
        return True

    return handle


def catch() -> None:
    """Handle the console's events from now on. Raises OSError."""
    if sys.platform == "win32":
        import ctypes
        from ctypes import wintypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        make = ctypes.WINFUNCTYPE(wintypes.BOOL, wintypes.DWORD)
        callback = make(handler(lambda: signal.raise_signal(signal.SIGBREAK), threading.Event().wait))
        _kept.append(callback)
        if not kernel.SetConsoleCtrlHandler(callback, True):
            raise ctypes.WinError(ctypes.get_last_error())
