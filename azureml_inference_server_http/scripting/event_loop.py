"""The event loop of an async script: makes it, waits for one call on it, and ends it.

Runs on the main thread of worker processes, and in tests of scripts (``server.create_app``), which wait for one call
after the other. ``async_calls`` runs many calls at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import select
import selectors
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

from . import outputs

_logger = logging.getLogger("azmlinfsrv")
# Seconds that the tasks which are left at the end of the worker may take to end, once they are cancelled.
CLOSE_GRACE = 5.0


if sys.platform == "linux":

    class ExactSelector(selectors.EpollSelector):
        """Waits as long as it is told. That of Python rounds the time up to whole milliseconds, so that
        ``asyncio.sleep(0.001)`` takes nearly 2 ms, and calls whose times are over one after the other wake together."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            """What is ready. A wait of several milliseconds may return before its time with nothing, which a loop takes
            for a wait that was interrupted, and waits again for the rest."""
            if timeout is not None and timeout > 0:
                whole = int(timeout * 1e3)
                if whole:
                    return super().select((whole - 0.5) / 1e3)  # rounded up to ``whole``
                try:
                    select.select([self.fileno()], (), (), timeout)
                except ValueError:  # a descriptor from 1024 on
                    return super().select(timeout)
                timeout = 0
            return super().select(timeout)


def make_loop() -> asyncio.AbstractEventLoop:
    """A new loop of the script's policy, set for this thread."""
    loop = asyncio.new_event_loop()
    if sys.platform == "linux" and type(loop) is asyncio.SelectorEventLoop:
        loop.close()
        loop = asyncio.SelectorEventLoop(ExactSelector())
    asyncio.set_event_loop(loop)
    return loop


def complete(loop: asyncio.AbstractEventLoop, result: Any) -> Any:
    """Wait for the result of an async function; any other result is returned as it is. For code that waits for one call
    after the other: init(), and tests of scripts."""
    if inspect.isawaitable(result):
        result = loop.run_until_complete(_await(result))
    return result


async def _await(result: Any) -> Any:
    return await result


def iterate(
    loop: asyncio.AbstractEventLoop, stream: outputs.AsyncStream, context: contextvars.Context
) -> Iterator[bytes]:
    """The parts of an async stream, for code that is not async. They are made in this context."""
    try:
        while (part := context.run(loop.run_until_complete, next_part(stream))) is not None:
            yield part
    finally:
        if not loop.is_closed():
            context.run(loop.run_until_complete, stream.aclose())


def close(loop: asyncio.AbstractEventLoop) -> None:
    """End the loop: cancel the tasks that are left, and let async generators finish."""
    if loop.is_closed() or loop.is_running():
        return
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    try:
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=CLOSE_GRACE))
        loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), CLOSE_GRACE))
    except Exception as error:
        _logger.warning("The event loop of the script could not be ended in order: %s", error)
    finally:
        loop.close()


async def next_part(stream: AsyncIterator[bytes]) -> bytes | None:
    """The next part, or None at the end."""
    try:
        return await stream.__anext__()
    except StopAsyncIteration:
        return None
