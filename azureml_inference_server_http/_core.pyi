"""Types of the Rust module (``src/python_module.rs``)."""

from collections.abc import Callable
from typing import Any, Final, final

from .launch.settings import Settings
from .scripting.script import Script

__all__ = [
    "INTERRUPT_GRACE",
    "ThreadChannel",
    "adopt_orphans",
    "arguments",
    "check",
    "die_with_parent",
    "serve",
    "work",
]

# Seconds after SCORING_TIMEOUT_MS until a call of run() in native code is answered and its worker
# is killed.
INTERRUPT_GRACE: Final[float]

@final
class ThreadChannel:
    """Connects the front and the worker threads of one process. Pass the same one to ``serve`` and
    to every ``work``."""

    def report(self, report: bytes) -> bool: ...

def serve(
    settings: Settings,
    *,
    clients: list[int],
    workers: int | ThreadChannel,
    supervisor: int,
    log: tuple[int, bool, Callable[[dict[str, str]], None] | None, bool],
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
def check(settings: Settings) -> None: ...
