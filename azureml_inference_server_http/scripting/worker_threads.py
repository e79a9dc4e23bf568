"""The threads that call run() in a worker process with ``--worker_threads``.

Owns how Python knows them, and which scripts cannot have them. ``src/worker/pool/`` is what they do.
Runs in worker processes.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Callable

from ..api.batching import MARK
from ..server.user_script import ScriptLoadError
from ..supervise import system_threads

if TYPE_CHECKING:
    from .script import Script


class CannotUseThreads(ScriptLoadError):
    """The script cannot be served with --worker_threads. The text says why, and what to do."""


def start(number: int, body: Callable[[], None]) -> None:
    """Start thread ``number``. It is a daemon, so that a call that never returns cannot keep a worker
    from exiting."""
    threading.Thread(target=body, name=f"azmlinfsrv-run-{number}", daemon=True).start()


def check(script: Script) -> None:
    """Raise CannotUseThreads if threads cannot call the run() of a script whose init() has returned."""
    if script.is_async:
        raise CannotUseThreads(
            "run() is async, so all its calls share one thread, and --worker_threads does not apply: leave it out. "
            "--max_concurrency says how many calls run at once."
        )
    if getattr(script.plain_run, MARK, None) is not None:
        raise CannotUseThreads(
            "run() is decorated with @batched, so one call answers several requests, and --worker_threads would give "
            "each request a call of its own: leave out one of the two."
        )
    call = system_threads.replaced_by()
    if call is not None:
        raise CannotUseThreads(
            f"The script has called {call}, which replaces threads by greenlets, and --worker_threads needs threads. "
            "Leave out --worker_threads, or call it with thread=False."
        )
