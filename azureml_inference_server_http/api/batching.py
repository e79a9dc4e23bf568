"""Public: ``batched``, for a run() that takes the inputs of several requests at once.

Owns the decorator, and the calls of an async run() that it joins. The calls of other scripts are
joined by the worker (``scripting/batching.py``). Runs in workers.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, TypeVar, overload

from ..scripting.joint_calls import JointCalls

if TYPE_CHECKING:
    import asyncio

__all__ = ["batched"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
# The attribute of a decorated function with its `Batch`.
MARK = "_azmlinfsrv_batch"
LONGEST_WAIT_MS = 250


class Batch:
    """What ``batched`` knows of a function: the function, the most requests of one call, and how
    many seconds a request waits for others. ``decorated`` is the function that replaces it. ``calls``: what the joint
    calls of an async function have come to; ``scripting/batching.py`` sets another one for run()."""

    def __init__(self, run: Callable[..., Any], max_size: int, max_wait_ms: float) -> None:
        self.run = run
        self.max_size = max_size
        self.wait = max_wait_ms / 1000
        self.signature = inspect.signature(run)
        self.decorated: Callable[..., Any] | None = None
        name = getattr(run, "__name__", "the function")
        self.calls = JointCalls(f"Correct {name}(), which has @batched (docs/batching.md).")
        # Of an async run(): what waits for its next call, by event loop.
        self._gatherings: dict[asyncio.AbstractEventLoop, Gathering] = {}

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by their names, with defaults."""
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def gathering(self, loop: asyncio.AbstractEventLoop) -> Gathering:
        """The requests that wait for the next call in this event loop. Forgets loops that were closed
        while requests waited."""
        found = self._gatherings.get(loop)
        if found is None:
            for other in list(self._gatherings):
                if other.is_closed():
                    self._gatherings.pop(other, None)
            found = self._gatherings[loop] = Gathering(self)
        return found


class TimeLimit:
    """What an async run() with @batched tells about a request's time limit. This class has no limit;
    ``scripting/async_calls.py`` has the worker's."""

    # The context of a shared call, if it must not be that of the request's task: without Flask's request context.
    shared_context: contextvars.Context | None = None

    def share(self, end: Callable[[], None] | None) -> None:
        """A call for several requests begins. When the time is over, ``end`` is called first. None: the
        request shares a call no more."""

    def restart(self) -> None:
        """A call for this request alone begins, with the whole time."""


# The time limit of the request that the current task serves.
LIMIT: contextvars.ContextVar[TimeLimit] = contextvars.ContextVar("azmlinfsrv_limit")


class Member(NamedTuple):
    """A request of an async run(): its arguments, the future of its result, its time limit, and the
    context of its task, which has its log ids and its span."""

    arguments: dict[str, Any]
    future: asyncio.Future[Any]
    limit: TimeLimit
    context: contextvars.Context


class Gathering:
    """The requests that wait for the next call of an async run(), and the timer that begins it."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.members: list[Member] = []
        self.timer: asyncio.TimerHandle | None = None


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
    if function is not None and not callable(function):
        raise TypeError(f"@batched({function!r}): options have names, such as @batched(max_size=8)")
    if type(max_size) is not int or not 1 <= max_size <= 1024:
        raise ValueError(f"@batched(max_size={max_size!r}): it has to be a whole number from 1 to 1024")
    if type(max_wait_ms) not in (int, float) or not 0 <= max_wait_ms <= LONGEST_WAIT_MS:
        raise ValueError(f"@batched(max_wait_ms={max_wait_ms!r}): it has to be a number from 0 to {LONGEST_WAIT_MS}")

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
    if not _is_list(returned):
        hint = ", for example frame.to_dict(orient='records')" if hasattr(type(returned), "columns") else ""
        raise TypeError(
            "run() has @batched, so it has to return a list with the result of each input, in the order of the inputs"
            f"{hint}. It returned {type(returned).__name__}"
        )
    results = list(returned)
    if len(results) != count:
        raise ValueError(f"run() has @batched, and returned {len(results)} results for {count} inputs")
    return results


def _is_list(returned: Any) -> bool:
    """True for lists, tuples, arrays, tensors and series: their entries have an order, and belong to
    inputs. Sets have no order. The entries of a dict are its keys, and those of a frame its columns."""
    if isinstance(returned, (str, bytes, bytearray, memoryview, Mapping)) or hasattr(type(returned), "columns"):
        return False
    # An array without dimensions is a single number.
    is_array = hasattr(type(returned), "__array__") and getattr(returned, "ndim", 1) > 0
    return isinstance(returned, Sequence) or is_array


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
        gathering = batch.gathering(loop)
        member = Member(
            batch.named(args, kwargs), loop.create_future(), LIMIT.get(TimeLimit()), contextvars.copy_context()
        )
        gathering.members.append(member)
        if len(gathering.members) >= batch.max_size or not batch.calls.are_possible:
            _begin(gathering, run)
        elif gathering.timer is None:
            gathering.timer = loop.call_later(batch.wait, _begin, gathering, run)
        try:
            return await member.future
        finally:
            member.limit.share(None)

    return call_for_one


def _begin(gathering: Gathering, run: Callable[..., Awaitable[Any]]) -> None:
    """Call run() for the requests that wait, in a task."""
    if gathering.timer is not None:
        gathering.timer.cancel()
        gathering.timer = None
    members = [member for member in gathering.members if not member.future.done()]
    gathering.members = []
    if members:
        _task(gathering.batch.calls, run, members)


def _task(calls: JointCalls, run: Callable[..., Awaitable[Any]], members: Sequence[Member]) -> asyncio.Task[None]:
    """A task that calls run() for these requests. It has the context of the first one, because log
    records and spans of the call are made once."""
    futures = [member.future for member in members]
    first = members[0]
    shared = first.limit.shared_context if len(members) > 1 else None
    # A context can be entered once at a time, and several calls may share this one.
    context = first.context if shared is None else shared.copy()
    task = context.run(futures[0].get_loop().create_task, _answer(calls, run, members))
    # However the task ends: each request gets an answer.
    task.add_done_callback(lambda _: _fail_open(task, futures))
    for future in futures:
        future.add_done_callback(lambda _: _cancel_if_all_left(task, futures))
    return task


def _fail_open(task: asyncio.Task[None], futures: Sequence[asyncio.Future[Any]]) -> None:
    """Fail the requests that a task has left without an answer, because it was cancelled, or has
    raised an exception that ends the event loop."""
    error = None if task.cancelled() else task.exception()
    if error is None:
        error = RuntimeError("the task that called run() for several requests was cancelled")
    for future in futures:
        if not future.done():
            _fail(future, error)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if isinstance(error, StopIteration):
        # asyncio does not take it, because in a coroutine it means the end.
        failure = RuntimeError(f"run() has @batched, and failed with {error!r}")
        failure.__cause__ = error
        error = failure
    future.set_exception(error)


def _cancel_if_all_left(task: asyncio.Task[None], futures: Sequence[asyncio.Future[Any]]) -> None:
    if all(future.cancelled() for future in futures):
        task.cancel()


async def _answer(calls: JointCalls, run: Callable[..., Awaitable[Any]], members: Sequence[Member]) -> None:
    import asyncio

    is_joint = len(members) > 1
    if is_joint:
        end = _ending(asyncio.current_task())
        for member in members:
            member.limit.share(end)
    has_returned = False
    calls.count(len(members))
    try:
        arguments = {name: [member.arguments[name] for member in members] for name in members[0].arguments}
        returned = await run(**arguments)
        has_returned = True
        results = results_of(returned, len(members))
    except (Exception, SystemExit, asyncio.CancelledError) as error:
        # SystemExit would end the event loop, and with it the calls of other requests.
        if is_joint:
            if has_returned:
                calls.note_useless(str(error))
            return await _answer_each(calls, run, members, None if has_returned else error)
        results = [error]
    if is_joint:
        calls.note_use()
    for member, result in zip(members, results):
        if member.future.done():
            continue
        if isinstance(result, BaseException):
            _fail(member.future, result)
        else:
            member.future.set_result(result)


async def _answer_each(
    calls: JointCalls, run: Callable[..., Awaitable[Any]], members: Sequence[Member], error: BaseException | None
) -> None:
    """Call run() for each request that is left, because it has raised ``error`` for all of them, or its result was of
    no use. Only those requests fail that fail alone. None waits for the call of another one, which may take long, and
    go on after it was cancelled."""
    import asyncio

    left = [member for member in members if not member.future.done()]
    for member in left:
        member.limit.restart()
        _task(calls, run, [member])
    if left:  # when this task ends, it fails requests that have no answer
        await asyncio.wait([member.future for member in left])
    ended = [member.future for member in left if not member.future.cancelled()]
    if error is not None and ended:
        calls.note_failure(error, sum(future.exception() is not None for future in ended))


def _ending(task: asyncio.Task[Any] | None) -> Callable[[], None]:
    """A function that cancels the task once, because the times of several requests are over together."""
    left = [task]

    def end() -> None:
        task = left.pop() if left else None
        if task is not None:
            task.cancel()

    return end
