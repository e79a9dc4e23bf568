"""Forking a child from Python code, so that the child does not go on with what its parent was doing.

Used in the supervisor, and in the template for workers. Scripts fork by other means, which are their own business.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Collection
from typing import Callable, NoReturn

from .supervising import ChildEnded

# Python's own function. A script may have gevent or a debugger replace it.
plain_fork = os.fork


def flush() -> None:
    """Write what is buffered in the standard streams. A child would write it once more."""
    for stream in (sys.stdout, sys.stderr):
        # A reader that has gone away must not take the server with it.
        with contextlib.suppress(OSError):
            stream.flush()


def fork(begin: Callable[[], int], handled: Collection[int]) -> int:
    """Fork, and run ``begin`` in the child, which ends with its exit code. Returns the child's pid; raises OSError.

    A signal to the newborn child must not be told to its parent, whose handlers and wake-up descriptor it has. So the
    signals ``handled`` are blocked until the child has the default actions for them.
    """
    flush()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    try:
        pid = plain_fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in handled:
                signal.signal(number, signal.SIG_DFL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if pid == 0:
        end_child(begin)
    return pid


def end_child(begin: Callable[[], int]) -> NoReturn:
    """Run ``begin`` in a child and raise ChildEnded, whatever ``begin`` raises: nobody may take that for a failure of
    the parent."""
    try:
        code = begin()
    except ChildEnded:
        raise
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    raise ChildEnded(code)
