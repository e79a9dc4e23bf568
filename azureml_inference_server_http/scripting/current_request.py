"""The request that run() is called for: ``api.current_request()``, and the ids in log records.

The Rust worker loop sets ``variable`` while it works on a request, including the parts of a stream
(``src/worker/current_request.rs``). asyncio copies it into each task, and into
``asyncio.to_thread``. ``hand_on_to_threads`` does the same for threads that run() starts, and
``hand_on_to_pools`` for functions that it submits to a pool.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Callable

from . import trace_context

if TYPE_CHECKING:
    from .._core import CurrentRequest

_NO_IDS = {"request_id": "", "client_request_id": "", "trace_id": ""}
variable: ContextVar[CurrentRequest | None] = ContextVar("azmlinfsrv_request", default=None)


def current_request() -> CurrentRequest | None:
    """The request that run() is called for; None outside of run().

    Everything that run() calls gets the same request, and so does a generator that run() returns,
    and each thread that one of them starts. A thread or task that goes on after the request gets
    None from then on.
    """
    request = variable.get()
    return None if request is None or request.is_finished else request


def ids() -> Mapping[str, str]:
    """The attributes that a log record gets now."""
    request = current_request()
    if request is None:
        return _NO_IDS
    return {
        "request_id": request.request_id,
        "client_request_id": request.client_request_id or "",
        "trace_id": request.trace_id or "",
    }


def add_ids_to_log_records() -> None:
    """Give every log record of this process, and of the processes that it forks, the attributes
    ``request_id``, ``client_request_id`` and ``trace_id``.

    They are empty in records that are not made for a request. If a log call has one of these names
    in ``extra``, its value stays. With a record factory, ``logging`` would refuse such a call.
    """
    make_record = logging.Logger.makeRecord
    if _is_ours(make_record):
        return

    @functools.wraps(make_record)
    def make_record_with_ids(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        record.__dict__ = {**ids(), **record.__dict__}
        return record

    logging.Logger.makeRecord = _ours(make_record_with_ids)  # type: ignore[method-assign]


def hand_on_to_threads() -> None:
    """Let each thread that is started while run() works have its request, and the active span of
    the script's OpenTelemetry."""
    start = threading.Thread.start
    if _is_ours(start):
        return

    @functools.wraps(start)
    def start_with_request(thread: threading.Thread) -> None:
        carry = _carrier()
        if carry is None:
            return start(thread)
        own_run = vars(thread).get("run")

        def restore() -> None:
            # Without this, the thread would hold itself, and what it holds would be freed late.
            if own_run is None:
                vars(thread).pop("run", None)
            else:
                thread.run = own_run  # type: ignore[method-assign]

        def run() -> None:
            restore()
            with carry():
                thread.run()

        # A subclass may have a ``run`` of its own, so the attribute of this thread is replaced.
        thread.run = run  # type: ignore[method-assign]
        try:
            start(thread)
        except BaseException:
            restore()
            raise

    threading.Thread.start = _ours(start_with_request)  # type: ignore[method-assign]


def hand_on_to_pools() -> None:
    """Let each function that is submitted to a ThreadPoolExecutor while run() works have its
    request, and the active span of the script's OpenTelemetry.

    Called when the script has imported the pools, because importing them delays the start.
    """
    from concurrent.futures import ThreadPoolExecutor

    submit: Any = ThreadPoolExecutor.submit
    if _is_ours(submit):
        return

    @functools.wraps(submit)
    def submit_with_request(pool: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        carry = _carrier()
        if carry is None:
            return submit(pool, function, *args, **kwargs)

        @functools.wraps(function)
        def with_request(*args: Any, **kwargs: Any) -> Any:
            with carry():
                return function(*args, **kwargs)

        # The pool may start a thread now, which will call the functions of other requests too.
        token = variable.set(None)
        try:
            return submit(pool, with_request, *args, **kwargs)
        finally:
            variable.reset(token)

    ThreadPoolExecutor.submit = _ours(submit_with_request)  # type: ignore[method-assign]


def _carrier() -> Callable[[], contextlib.AbstractContextManager[None]] | None:
    """Makes the present request current in another thread; None if there is none."""
    request = current_request()
    if request is None:
        return None
    spans = trace_context.present()

    @contextlib.contextmanager
    def carry() -> Iterator[None]:
        token = variable.set(request)
        attached = trace_context.attach_present(spans)
        try:
            yield
        finally:
            if attached is not None:
                trace_context.detach(attached)
            variable.reset(token)

    return carry


def _ours(function: Any) -> Any:
    function.is_of_current_request = True
    return function


def _is_ours(function: Any) -> bool:
    return getattr(function, "is_of_current_request", False)
