"""Signal handlers in Python, and giving them back in children that a script forks.

A forked child inherits handlers. Those of the supervisor or a worker would make it deaf to TERM, so that
``multiprocessing.Process.terminate()`` in a script would do nothing. Used in the supervisor and in workers.
"""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Callable

Handler = Callable[[int, Any], None]


def install(handlers: Mapping[int, Handler]) -> None:
    """Handle these signals from here on."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def give_back(numbers: Iterable[int], ours: Collection[Handler]) -> None:
    """Those of these signals that one of our handlers would get do what they do by default; other handlers stay."""
    for number in numbers:
        if signal.getsignal(number) in ours:
            signal.signal(number, signal.SIG_DFL)
