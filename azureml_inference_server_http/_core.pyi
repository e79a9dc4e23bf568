"""Types of the Rust module (``src/python_module.rs``)."""

from collections.abc import Callable
from typing import Any, Final, final

from .launch.settings import Settings
from .scripting.script import Script
from .supervise.front import LogOutput

__all__ = [
    "INTERRUPT_GRACE",
    "IS_FOR_MUSL",
    "Counter",
    "CurrentRequest",
    "Gauge",
    "Histogram",
    "ThreadChannel",
    "adopt_orphans",
    "arguments",
    "check",
    "count_restart",
    "count_run",
    "die_with_parent",
    "forget_process",
    "project_files",
    "serve",
    "set_init_duration",
    "set_starting_workers",
    "share_metrics",
    "work",
]

# Seconds after SCORING_TIMEOUT_MS until a call of run() in native code is answered and its worker
# is killed.
INTERRUPT_GRACE: Final[float]
# Whether this module was built for musl, and not for another C library.
IS_FOR_MUSL: Final[bool]

@final
class CurrentRequest:
    """The request that run() is called for (``api.current_request``)."""

    @property
    def request_id(self) -> str:
        """The ``x-request-id`` of the reply. Empty if the client sent an empty one."""
    @property
    def client_request_id(self) -> str | None:
        """The ``x-ms-client-request-id`` of the reply; None if the client sent none."""
    @property
    def trace_id(self) -> str | None:
        """The trace that the request belongs to, as 32 hexadecimal digits; None if the client sent
        no valid ``traceparent``, and the server exports no traces."""
    @property
    def span_id(self) -> str | None:
        """The span that the call of run() belongs to, as 16 hexadecimal digits; None like
        ``trace_id``."""
    @property
    def traceparent(self) -> str | None:
        """A value of the header ``traceparent`` for requests that run() makes; None like
        ``trace_id``."""
    @property
    def deadline(self) -> float | None:
        """When run() will be interrupted (``SCORING_TIMEOUT_MS``) or its worker killed
        (``WORKER_TIMEOUT``), in seconds of ``time.monotonic()``; None without a limit."""
    @property
    def is_finished(self) -> bool:
        """True when the reply has been sent, with all parts of a stream."""

@final
class ThreadChannel:
    """Connects the front and the worker threads of one process. Pass the same one to ``serve`` and
    to every ``work``."""

    def report(self, report: bytes) -> bool: ...

@final
class Counter:
    """A number that only grows. ``api.metrics.counter`` makes it."""

    def __new__(cls, name: str, help: str, labels: list[tuple[str, str]]) -> Counter: ...
    def inc(self, amount: float = 1.0) -> None:
        """Add to it. Raises ValueError for a negative amount."""

    @property
    def value(self) -> float:
        """Its value: in the server the sum over all workers."""

    @property
    def problem(self) -> str | None:
        """Why ``/metrics`` does not show it: ``full`` or ``conflict``; None if it does."""

@final
class Gauge:
    """A number that goes up and down. ``api.metrics.gauge`` makes it."""

    def __new__(cls, name: str, help: str, labels: list[tuple[str, str]]) -> Gauge: ...
    def set(self, value: float) -> None:
        """Set it."""

    def inc(self, amount: float = 1.0) -> None:
        """Add to it."""

    def dec(self, amount: float = 1.0) -> None:
        """Subtract from it."""

    def follow_fork(self) -> None:
        """Give this process a number of its own."""

    @property
    def value(self) -> float:
        """Its value in this process."""

    @property
    def problem(self) -> str | None:
        """Why ``/metrics`` does not show it: ``full`` or ``conflict``; None if it does."""

@final
class Histogram:
    """Counts values by their size. ``api.metrics.histogram`` makes it."""

    def __new__(cls, name: str, help: str, labels: list[tuple[str, str]], bounds: list[float]) -> Histogram: ...
    def observe(self, value: float) -> None:
        """Count a value."""

    @property
    def count(self) -> int:
        """How many values it has: in the server the sum over all workers."""

    @property
    def sum(self) -> float:
        """The sum of all values: in the server the sum over all workers."""

    @property
    def problem(self) -> str | None:
        """Why ``/metrics`` does not show it: ``full`` or ``conflict``; None if it does."""

def serve(
    settings: Settings,
    *,
    clients: list[int],
    workers: int | ThreadChannel,
    supervisor: int,
    log: LogOutput,
    reports: int | None,
    machine: tuple[str, str | None] | None,
) -> None: ...
def work(
    settings: Settings,
    *,
    front: tuple[int, int] | ThreadChannel,
    worker: int,
    script: Script,
    swagger: dict[str, str],
    retiring: Callable[[], bool],
) -> None: ...
def arguments(
    script: Script, *, method: str, query: bytes, headers: list[tuple[str, str]], body: bytes
) -> tuple[dict[str, Any] | None, tuple[int, str] | Exception | None]: ...
def adopt_orphans() -> bool: ...
def die_with_parent(parent: int) -> bool: ...
def project_files(folder: str) -> list[str]: ...
def check(settings: Settings) -> None: ...
def share_metrics() -> None: ...
def count_restart(reason: str) -> None: ...
def forget_process(pid: int) -> None: ...
def set_init_duration(seconds: float) -> None: ...
def count_run(requests: int) -> None: ...
def set_starting_workers(workers: int) -> None: ...
