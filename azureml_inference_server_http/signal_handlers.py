"""Signal handlers in Python, and giving them back in children that a script forks.

A forked child inherits handlers. Those of the supervisor or a worker would make it deaf to TERM, so that
``multiprocessing.Process.terminate()`` in a script would do nothing. Used wherever a script runs.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Mapping
from typing import Any, Callable

Handler = Callable[[int, Any], None]


def do_nothing(*_: Any) -> None:
    """Signal handler for signals that are noticed otherwise. Not SIG_IGN, which programs that the script starts would
    inherit."""


def install(handlers: Mapping[int, Handler]) -> None:
    """Handle these signals from here on."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def keep_from_children(numbers: Collection[int], *ours: Handler) -> None:
    """From here on a forked child starts with the default actions for those of these signals that one of our handlers
    would get; other handlers stay. A signal to a child so young that it still has ours waits until then."""
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
