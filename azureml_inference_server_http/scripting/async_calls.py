"""Runs an async run(): its calls are tasks of one event loop on the worker's main thread.

Owns the calls that run, their time limits, and what becomes of each. ``src/worker/executor/asynchronous.rs`` starts
calls, lets the loop run until something has happened, and sends what this module reports. ``event_loop`` makes the
loop, ``alarms`` keeps the time, and ``blocked_loop`` tells when the script blocks the loop. Runs in worker processes.

One file of more than 400 lines, because every step changes the calls that run.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import os
import time
from collections.abc import AsyncIterable, AsyncIterator
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from ..api.batching import LIMIT, TimeLimit
from . import outputs
from .alarms import Alarms
from .blocked_loop import BlockedLoop
from .event_loop import next_part

if TYPE_CHECKING:
    from ..launch.settings import Settings
    from .script import Script
    from .wsgi_environ import Request

# Seconds that a call which was cancelled by a time limit may take to end. Then its client is answered anyway. Shorter
# than the time after which the front has the worker killed, with all its calls (``_core.INTERRUPT_GRACE``).
CANCEL_GRACE = 1.0
# Seconds that a call may go on beyond its limit, if the loop was blocked when the time was over.
MOMENT = 0.1
# The longest time in seconds that ``Calls.run`` takes. The loop does not stop when a signal arrives. A worker that is
# told to end must notice the signal well within half a second, because it is killed after that.
LONGEST_RUN = 0.1

# What a report is about; ``asynchronous.rs`` has the same words.
RETURNED = "returned"  # the result of run(), yet to be rendered
ANSWERED = "answered"  # an outputs.Answer with its whole body
RAISED = "raised"  # the exception that run() has raised
OVERDUE = "overdue"  # the message about WORKER_TIMEOUT
LEFT = "left"  # the call was cancelled, because its client has left
STREAMS = "streams"  # an outputs.Answer without a body, whose parts follow
PART = "part"  # a part of a stream
ENDED = "ended"  # None at the end of a stream, or the exception that has broken it
AGAIN = "again"  # run() is called again for some requests, with the whole time limit

_logger = logging.getLogger("azmlinfsrv")


class Report(NamedTuple):
    """What has become of a call. ``seconds``: the time in run(), if it has returned."""

    number: int
    what: str
    value: Any
    seconds: float


class _Call(TimeLimit):
    """A call of run(), and for ``api/batching.py`` its time limit."""

    def __init__(self, calls: Calls, number: int, arguments: dict[str, Any] | None, request: Request | None):
        self._calls = calls
        self.number = number
        self.arguments = arguments
        self.request = request
        # Flask's request context belongs to one request, and is not here yet.
        self.shared_context = None if request is None else contextvars.copy_context()
        self.started = time.perf_counter()
        self.task: asyncio.Task[None] | None = None
        # The time limit that has cancelled it.
        self.exceeded: str | None = None
        self.has_left = False
        # False once its outcome was reported: nothing more may be.
        self.is_open = True
        # True once the head of its stream was reported: then only parts and the end may follow.
        self.is_stream = False
        # Of a stream: set while the client reads.
        self.may_go_on: asyncio.Event | None = None
        # Ends the call of run() that this one shares with others (@batched). Called before this one is cancelled.
        self.end_shared: Callable[[], None] | None = None

    def share(self, end: Callable[[], None] | None) -> None:
        self.end_shared = end

    def restart(self) -> None:
        self._calls.restart_limit(self)


class Calls:
    """The calls of one worker."""

    def __init__(self, script: Script, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self._script = script
        self._settings = settings
        self._loop = loop
        self._calls: dict[int, _Call] = {}
        self._reports: list[Report] = []
        # The time limits of the calls, by their numbers.
        self._alarms = Alarms(loop)
        self._scoring_limit = settings.scoring_timeout_ms / 1000
        # A call is cancelled before the front would have this worker killed, with all its calls.
        self._worker_limit = settings.worker_timeout - min(settings.worker_timeout / 2, 1.0)
        self._blocked = BlockedLoop()
        self._pid = os.getpid()
        # The connection to the front whose bytes stop the loop: its descriptor, and its number, because a new
        # connection may have the descriptor of the one before.
        self._watched: tuple[int, int] | None = None
        self._tick: asyncio.TimerHandle | None = None
        self._is_stopping = False

    # ---- For the worker's loop

    def start(
        self,
        number: int,
        arguments: dict[str, Any] | None,
        request: tuple[Any, ...] | None,
    ) -> None:
        """Call run() with these arguments, as a task that begins when the loop runs next. The task gets a copy of the
        context in which this is called: so its log records and spans are those of the request.

        ``request``: the fields of ``wsgi_environ.Request``, if run() must be called in a request context of Flask.
        """
        whole = None
        if request is not None:
            from .wsgi_environ import Request

            whole = Request(*request)
        call = _Call(self, number, arguments, whole)
        self._calls[number] = call
        call.task = self._loop.create_task(self._serve(call))
        call.task.add_done_callback(lambda _: self._end(call))
        self._limit_run(call)

    def cancel(self, number: int) -> None:
        """The client of this call has left."""
        call = self._calls.get(number)
        if call is not None and call.task is not None:
            call.has_left = True
            call.task.cancel()

    def hold(self, number: int, must_wait: bool) -> None:
        """The stream of this call must wait until its client has read, or may go on."""
        call = self._calls.get(number)
        if call is None or call.may_go_on is None:
            return
        if must_wait:
            call.may_go_on.clear()
            self._alarms.drop(call.number)
        else:
            call.may_go_on.set()
            self._limit_part(call)

    def abandon(self) -> None:
        """Cancel all calls and report nothing about them: the front that waited for them has gone."""
        for call in list(self._calls.values()):
            self._close(call)
            if call.task is not None:
                call.task.cancel()
        self._reports.clear()

    def run(self, descriptor: int, connection: int) -> list[Report]:
        """Let the loop run until a call has something to report, the descriptor can be read, or ``LONGEST_RUN`` is
        over. Returns the reports. Raises what a task of the script has raised to end the process, such as SystemExit.

        ``connection``: another number for each connection to the front."""
        if not self._reports:
            self._stop_when_told(descriptor, connection)
            self._is_stopping = False
            self._blocked.begin()
            try:
                self._loop.run_forever()
            finally:
                self._blocked.end()
        reports, self._reports = self._reports, []
        return reports

    def release(self) -> None:
        """Leave the loop to others: nothing stops it any more."""
        if self._watched is not None:
            self._loop.remove_reader(self._watched[0])
            self._watched = None
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def _stop_when_told(self, descriptor: int, connection: int) -> None:
        """Have the loop stopped when the front has sent something, and regularly. What does that stays from one run of
        the loop to the next, because to make it anew takes as long as a call."""
        if self._watched != (descriptor, connection):
            self.release()
            self._loop.add_reader(descriptor, self._stop)
            self._watched = (descriptor, connection)
        if self._tick is None:
            self._tick = self._loop.call_later(LONGEST_RUN, self._stop_and_tick)

    def _stop_and_tick(self) -> None:
        self._stop()
        self._tick = self._loop.call_later(LONGEST_RUN, self._stop_and_tick)

    def _stop(self) -> None:
        """Stop the loop, once for each time that it runs: uvloop would stop the next time too."""
        if not self._is_stopping:
            self._is_stopping = True
            self._loop.stop()

    # ---- One call, in its task

    async def _serve(self, call: _Call) -> None:
        call.started = time.perf_counter()
        LIMIT.set(call)
        try:
            if call.request is not None:
                await self._serve_by_flask(call, call.request)
            else:
                await self._serve_plainly(call)
        except BaseException as exc:
            self._end_forked_child(exc)
            self._fail(call, exc)
        finally:
            self._close(call)

    async def _serve_by_flask(self, call: _Call, request: Request) -> None:
        async def run(arguments: dict[str, Any]) -> Any:
            return await self._run(call, arguments)

        async def send(answer: outputs.Answer) -> None:
            await self._send(call, answer)

        def is_over() -> bool:
            return call.has_left or call.exceeded == OVERDUE or not call.is_open

        await self._script.call_async_with_request(request, call.arguments, run, send, is_over)

    async def _serve_plainly(self, call: _Call) -> None:
        result = await self._run(call, call.arguments or {})
        if isinstance(result, AsyncIterable):
            result = outputs.Answer(
                200, None, [outputs.PLAIN_TEXT], outputs.AsyncStream(result, _nothing), outputs.RESPONSE
            )
        elif outputs.is_response(result):
            result = outputs.render(result, "POST", takes_async=True)
        else:
            return self._report(call, RETURNED, result)
        await self._send(call, result)

    async def _run(self, call: _Call, arguments: dict[str, Any]) -> Any:
        """The result of run(). Raises TimeoutError if SCORING_TIMEOUT_MS has cancelled it."""
        try:
            result = self._script.run(**arguments)
            if inspect.isawaitable(result):
                result = await result
        except asyncio.CancelledError as exc:
            if call.exceeded is None or call.has_left:
                raise
            raise _timeout(exc) from None
        self._end_forked_child(None)
        return result

    async def _send(self, call: _Call, answer: outputs.Answer) -> None:
        """Report an answer, and the parts of its stream, if it is one."""
        body = answer.body
        seconds = time.perf_counter() - call.started if answer.seconds is None else answer.seconds
        if isinstance(body, bytes):
            return self._report(call, ANSWERED, answer, seconds)
        stream = _parts(body)
        try:
            # The first part comes before the head, so that an exception before it is answered as an error.
            part = await next_part(stream)
            self._alarms.drop(call.number)
            call.is_stream = True
            call.may_go_on = asyncio.Event()
            call.may_go_on.set()
            self._report(call, STREAMS, answer._replace(body=b""), seconds, is_last=False)
            while part is not None:
                self._report(call, PART, part, is_last=False)
                # The loop's caller sends the part, and learns if the stream must wait.
                await asyncio.sleep(0)
                await call.may_go_on.wait()
                self._limit_part(call)
                part = await next_part(stream)
                self._alarms.drop(call.number)
        finally:
            await _close_stream(body)
        self._report(call, ENDED, None)

    def _fail(self, call: _Call, exc: BaseException) -> None:
        """Report what a call has come to that was cancelled, or has raised ``exc``."""
        is_cancelled = isinstance(exc, asyncio.CancelledError)
        if not call.is_open:
            if not is_cancelled:  # raised by code that runs when the client has its answer
                self._script.internal_failed(exc)
        elif is_cancelled and call.has_left:
            self._report(call, ENDED if call.is_stream else LEFT, None)
        elif call.exceeded == OVERDUE and (is_cancelled or isinstance(exc, TimeoutError)):
            message = f"The request was not finished within {self._settings.worker_timeout} seconds (WORKER_TIMEOUT)."
            if call.is_stream:
                self._report(call, ENDED, TimeoutError(message).with_traceback(exc.__traceback__))
            else:
                self._script.call_overdue(exc, message)
                self._report(call, OVERDUE, message)
        else:
            # A stream may be cancelled before its first part.
            exc = _timeout(exc) if is_cancelled and call.exceeded == RAISED else exc
            self._report(call, ENDED if call.is_stream else RAISED, exc)

    def _report(self, call: _Call, what: str, value: Any, seconds: float | None = None, is_last: bool = True) -> None:
        if not call.is_open:
            return
        if seconds is None:
            seconds = time.perf_counter() - call.started
        self._reports.append(Report(call.number, what, value, seconds))
        if is_last:
            self._close(call)
        self._stop()

    def _end(self, call: _Call) -> None:
        """The task of a call is done. If it was cancelled before it began, nothing of ``_serve`` has run."""
        if call.is_open:
            self._fail(call, asyncio.CancelledError())
        # The task's context knows the call. Python would need its garbage collector for both.
        call.task = None

    def _close(self, call: _Call) -> None:
        call.is_open = False
        self._alarms.drop(call.number)
        self._calls.pop(call.number, None)

    def _end_forked_child(self, exc: BaseException | None) -> None:
        if os.getpid() != self._pid:
            self._script.end_forked_child(exc)

    # ---- Time limits

    def _limit_run(self, call: _Call) -> None:
        """Cancel the call when SCORING_TIMEOUT_MS is over, or shortly before WORKER_TIMEOUT is."""
        scoring, worker = self._scoring_limit, self._worker_limit
        if scoring and (not worker or scoring <= worker):
            self._alarms.set(call.number, scoring, self._is_due, call, RAISED)
        elif worker:
            self._alarms.set(call.number, worker, self._is_due, call, OVERDUE)

    def restart_limit(self, call: _Call) -> None:
        """run() is called again for this request alone. Tells the front, which restarts the time of all calls of this
        worker. So one report is enough for calls that begin together."""
        call.end_shared = None
        self._alarms.drop(call.number)
        if call.is_open:
            self._limit_run(call)
            if not (self._reports and self._reports[-1].what == AGAIN):
                self._report(call, AGAIN, None, is_last=False)

    def _limit_part(self, call: _Call) -> None:
        """Cancel the stream if its next part takes longer than WORKER_TIMEOUT."""
        if self._worker_limit and call.is_open:
            self._alarms.set(call.number, self._worker_limit, self._is_due, call, OVERDUE)

    def _is_due(self, due: float, call: _Call, limit: str) -> None:
        """The time of a call is over. If the loop notices that late, another call has blocked it, or the machine was
        busy. What this call waits for may be there by now, so it may go on for a moment."""
        if self._loop.time() - due > MOMENT:
            self._alarms.set(call.number, MOMENT, self._expire, call, limit)
        else:
            self._expire(due, call, limit)

    def _expire(self, _due: float, call: _Call, limit: str) -> None:
        if call.task is None or not call.is_open:
            return
        if self._blocked.is_debugged():
            # A person is looking at the call. It has its limit again when the debugger has gone.
            self._alarms.set(call.number, CANCEL_GRACE, self._expire, call, limit)
            return
        if call.end_shared is not None:
            # Each request gets a call of its own then, unless run() does not let itself be cancelled.
            end, call.end_shared = call.end_shared, None
            self._alarms.set(call.number, CANCEL_GRACE, self._expire, call, limit)
            end()
            return
        call.exceeded = limit
        self._alarms.set(call.number, CANCEL_GRACE, self._answer_for, call)
        call.task.cancel()

    def _answer_for(self, _due: float, call: _Call) -> None:
        """Answer the client of a call that goes on though it was cancelled."""
        if call.task is None or not call.is_open:
            return
        _logger.warning(
            "A call of run() that was cancelled by a time limit goes on. Its client is answered. run() must not catch "
            "asyncio.CancelledError without raising it again."
        )
        self._fail(call, _timeout(None))


def _timeout(cancelled: BaseException | None) -> TimeoutError:
    """The exception that a time limit raises in run(), with the place where the call was cancelled."""
    timeout = TimeoutError("the scoring time-out is over")
    return timeout.with_traceback(cancelled.__traceback__ if cancelled else None)


def _nothing() -> None:
    pass


# ---- Streams


async def _parts(body: Any) -> AsyncIterator[bytes]:
    """The parts of a stream of either kind. A generator that is not async blocks the loop while it makes a part."""
    if isinstance(body, outputs.AsyncStream):
        async for part in body:
            yield part
    else:
        for part in body:
            yield part


async def _close_stream(body: Any) -> None:
    if isinstance(body, outputs.AsyncStream):
        await body.aclose()
    else:
        body.close()
