"""Forks the children of the server, and makes sure that a child never continues with its parent's
code.

Used in the supervisor, and in the template for workers. Forks of the user's script do not go
through this module.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Collection
from typing import Callable, NoReturn

from ..launch.stdio import flush_standard_streams
from .supervising import ChildEnded

# Python's own function, kept because gevent or a debugger may replace ``os.fork``.
plain_fork = os.fork


def fork(begin: Callable[[], int], handled: Collection[int]) -> int:
    """Fork a child that calls ``begin`` and exits with its result. Returns the child's pid. Raises
    OSError.

    A new child has the parent's signal handlers and wake-up descriptor, so a signal to the child
    would be reported to the parent. Therefore the signals ``handled`` are blocked until the child
    has the default actions for them.
    """
    # Otherwise the child would write the buffered text again.
    flush_standard_streams()
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
    """Call ``begin`` in a child, and raise ChildEnded with its exit code, whatever ``begin``
    raises. Another exception would be handled as an error of the parent, whose calls are still on
    the stack."""
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
