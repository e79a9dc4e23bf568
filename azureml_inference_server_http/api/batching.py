"""Public: ``batched``, for a run() that takes the inputs of several requests at once.

Owns the decorator, and the calls of an async run() that it joins. The calls of other scripts are
joined by the worker (``scripting/batching.py``). Runs in workers.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Callable, TypeVar, overload

if TYPE_CHECKING:
    import asyncio

__all__ = ["batched"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
# The attribute of a decorated function with its `Batch`.
MARK = "_azmlinfsrv_batch"
LONGEST_WAIT_MS = 250


class Batch:
    """What ``batched`` knows of a function: the function, the most requests of one call, and how
    many seconds a request waits for others. ``decorated`` is the function that replaces it."""

    def __init__(self, run: Callable[..., Any], max_size: int, max_wait_ms: float) -> None:
        self.run = run
        self.max_size = max_size
        self.wait = max_wait_ms / 1000
        self.signature = inspect.signature(run)
        self.decorated: Callable[..., Any] | None = None
        # Requests of an async run() that wait for its next call.
        self.waiting: list[tuple[dict[str, Any], asyncio.Future[Any]]] = []
        self.timer: asyncio.TimerHandle | None = None

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by their names, with defaults."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


@overload
def batched(function: _Function, /) -> _Function: ...


@overload
def batched(*, max_size: int = 32, max_wait_ms: float = 5) -> Callable[[_Function], _Function]: ...


def batched(function: Any = None, /, *, max_size: int = 32, max_wait_ms: float = 5) -> Any:
    """Decorator: run() gets a list with the inputs of up to ``max_size`` requests, and returns a
    list with the result of each, in the same order.

    A result that is an exception fails its request alone. If run() itself raises an exception, it is
    called again for each request alone. If run() has several parameters, each gets a list. A request
    waits up to ``max_wait_ms`` milliseconds for others. With inference-schema, ``@batched`` is the
    innermost decorator, and the lists have the converted values.

    The decorated function takes one input and returns its result, so that it can be tested as a
    plain run().
    """
    if not 1 <= max_size <= 1024:
        raise ValueError(f"@batched(max_size={max_size}): it has to be a whole number from 1 to 1024")
    if not 0 <= max_wait_ms <= LONGEST_WAIT_MS:
        raise ValueError(f"@batched(max_wait_ms={max_wait_ms}): it has to be a number from 0 to {LONGEST_WAIT_MS}")

    def decorate(run: Callable[..., Any]) -> Any:
        if inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run):
            raise TypeError("@batched: run() has to return a list of results, so it must not contain yield")
        batch = Batch(run, max_size, max_wait_ms)
        decorated = _asynchronous(batch, run) if inspect.iscoroutinefunction(run) else _plain(batch, run)
        setattr(decorated, MARK, batch)
        batch.decorated = decorated
        return decorated

    return decorate if function is None else decorate(function)


def results_of(returned: Any, count: int) -> list[Any]:
    """The results that run() has returned for this many inputs. Raises an exception that says what
    is wrong with them."""
    results = None if isinstance(returned, (str, bytes, dict)) or not hasattr(returned, "__len__") else list(returned)
    if results is None:
        raise TypeError(f"run() has @batched, so it has to return a list of results, not {type(returned).__name__}")
    if len(results) != count:
        raise ValueError(f"run() has @batched, and returned {len(results)} results for {count} inputs")
    return results


def _only(returned: Any) -> Any:
    """The result for the only input."""
    (result,) = results_of(returned, 1)
    if isinstance(result, BaseException):
        raise result
    return result


# inference-schema takes the last variable of a function's closure for the function that the user has
# written, in the order of the alphabet: ``run`` must stay behind ``batch``.


def _plain(batch: Batch, run: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run)
    def call_for_one(*args: Any, **kwargs: Any) -> Any:
        return _only(run(**{name: [value] for name, value in batch.named(args, kwargs).items()}))

    return call_for_one


def _asynchronous(batch: Batch, run: Callable[..., Awaitable[Any]]) -> Callable[..., Any]:
    @functools.wraps(run)
    async def call_for_one(*args: Any, **kwargs: Any) -> Any:
        import asyncio  # not imported with this module, because a worker waits in another way if a script uses it

        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        batch.waiting.append((batch.named(args, kwargs), future))
        if len(batch.waiting) >= batch.max_size:
            _begin(batch, run)
        elif batch.timer is None:
            batch.timer = loop.call_later(batch.wait, _begin, batch, run)
        return await future

    return call_for_one


def _begin(batch: Batch, run: Callable[..., Awaitable[Any]]) -> None:
    """Call run() for the requests that wait, in a task."""
    if batch.timer is not None:
        batch.timer.cancel()
        batch.timer = None
    members = [(arguments, future) for arguments, future in batch.waiting if not future.done()]
    batch.waiting = []
    if not members:
        return
    task = members[0][1].get_loop().create_task(_answer(run, members))
    for _, future in members:
        future.add_done_callback(lambda _: _cancel_if_all_left(task, [future for _, future in members]))


def _cancel_if_all_left(task: asyncio.Task[None], futures: Sequence[asyncio.Future[Any]]) -> None:
    if all(future.cancelled() for future in futures):
        task.cancel()


async def _answer(
    run: Callable[..., Awaitable[Any]], members: Sequence[tuple[dict[str, Any], asyncio.Future[Any]]]
) -> None:
    try:
        arguments = {name: [given[name] for given, _ in members] for name in members[0][0]}
        results = results_of(await run(**arguments), len(members))
    except Exception as error:
        if len(members) == 1:
            results = [error]
        else:
            # Only those requests fail that fail alone.
            for member in members:
                if not member[1].done():
                    await _answer(run, [member])
            return
    for (_, future), result in zip(members, results):
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
