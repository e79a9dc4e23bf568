"""Lets greenlets and asyncio tasks that a script left in the main thread run while its worker waits
for a job.

A worker usually waits in native code, and meanwhile only other threads can run. 1.5.1 waited in
``select.select()``, so greenlets ran between requests if gevent or eventlet had patched that
function. This module finds out which scheduler the script uses (gevent, eventlet or asyncio), and
waits in it. It imports none of them. Used by ``src/worker/executor/cooperative.rs`` in worker
processes, on the main thread. Worker threads wait in native code, because the greenlets and tasks
that init() left belong to the main thread.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Callable

# A worker runs an asyncio loop with unfinished tasks only when the loop has been idle for this many
# seconds, because init() may have started a thread that is about to run the loop.
GRACE = 1.0

Wait = Callable[[int, float], object]


class Waiter:
    """Waits for jobs in one worker process. ``inherited``: init() ran in the process from which
    this one was forked."""

    def __init__(self, inherited: bool) -> None:
        # Loops that the worker must not run. An inherited loop shares its selector with the loops
        # of the other workers that were forked from the same process. A loop that was found running
        # belongs to another thread.
        self._foreign: list[object] = [_current_loop()] if inherited else []
        # The idle loop that was found last, and the time when it was found first.
        self._loop: object = None
        self._since = 0.0

    def wait(self, descriptor: int, seconds: float) -> bool:
        """Run the script's scheduler until the descriptor can be read, or ``seconds`` have passed.

        Returns False at once if the script uses no scheduler. Exceptions that the scheduler does
        not catch, such as SystemExit, are raised.
        """
        wait = _gevent() or _eventlet()
        if wait is not None:
            wait(descriptor, seconds)
            return True
        loop = _current_loop()
        if loop is None or not self._may_run(loop):
            return False
        _run(loop, descriptor, seconds)
        return True

    def _may_run(self, loop: Any) -> bool:
        if any(loop is foreign for foreign in self._foreign) or loop.is_closed():
            return False
        if loop.is_running():
            self._foreign.append(loop)
            return False
        if not sys.modules["asyncio"].all_tasks(loop):
            return False
        if loop is not self._loop:
            self._loop, self._since = loop, time.monotonic()
        return time.monotonic() - self._since >= GRACE


def _gevent() -> Wait | None:
    """gevent's select(), if this thread has a hub: the object that runs greenlets."""
    local = sys.modules.get("gevent._hub_local")
    if local is None or local.get_hub_if_exists() is None:
        return None
    from gevent.select import select

    return lambda descriptor, seconds: select([descriptor], [], [], seconds)


def _eventlet() -> Wait | None:
    """eventlet's select(), if this thread has a hub."""
    hubs = sys.modules.get("eventlet.hubs")
    if hubs is None or getattr(hubs._threadlocal, "hub", None) is None:
        return None
    from eventlet.green.select import select

    return lambda descriptor, seconds: select([descriptor], [], [], seconds)


def _current_loop() -> Any:
    """The asyncio loop that is set for this thread, or None. Reads asyncio's variable, because its
    functions would make a loop or warn."""
    events = sys.modules.get("asyncio.events")
    policy = getattr(events, "_event_loop_policy", None)
    return getattr(getattr(policy, "_local", None), "_loop", None)


def _run(loop: Any, descriptor: int, seconds: float) -> None:
    """Run an asyncio loop until the descriptor can be read, or the time is over."""
    loop.add_reader(descriptor, loop.stop)
    timer = loop.call_later(seconds, loop.stop)
    try:
        loop.run_forever()
    finally:
        timer.cancel()
        if not loop.is_closed():
            loop.remove_reader(descriptor)
