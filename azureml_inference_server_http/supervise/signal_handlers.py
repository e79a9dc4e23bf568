"""Installs signal handlers, and removes them in children that a script forks.

A forked child inherits handlers. With the handlers of a worker it would ignore TERM, so that
``multiprocessing.Process.terminate()`` in a script would do nothing. Used in every process that
runs a script, and in the supervisor.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Mapping
from typing import Any, Callable

Handler = Callable[[int, Any], None]


def do_nothing(*_: Any) -> None:
    """Signal handler for signals that need no action here, or that the wake-up descriptor reports.
    It is not SIG_IGN, because programs that the script starts would inherit that."""


def install(handlers: Mapping[int, Handler]) -> None:
    """Set these handlers."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def keep_from_children(numbers: Collection[int], *ours: Handler) -> None:
    """Restore the default actions in every child that this process forks from now on.

    That is done for those of the signals ``numbers`` whose handler is one of ``ours``. A handler
    that the script has set stays. The signals are blocked during the fork, so that a signal to the
    new child waits until it has the default actions.
    """
    masks: dict[int, set[int]] = {}

    def before() -> None:
        masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def after_in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop(threading.get_ident()))

    def after_in_child() -> None:
        for number in numbers:
            if signal.getsignal(number) in ours:
                signal.signal(number, signal.SIG_DFL)
        after_in_parent()

    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=after_in_child)
