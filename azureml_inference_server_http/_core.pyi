"""Types of the Rust module (``src/python_module.rs``)."""

from collections.abc import Callable

from .script import Script
from .settings import Settings

__all__ = ["check", "die_with_parent", "serve", "work"]

def serve(
    settings: Settings,
    *,
    clients: list[int],
    workers: int,
    supervisor: int,
    log_level: int,
    log_to_python: bool,
) -> None: ...
def work(
    settings: Settings, *, socket_path: str, script: Script, swagger: dict[str, str], retiring: Callable[[], bool]
) -> None: ...
def die_with_parent(parent: int) -> bool: ...
def check(settings: Settings) -> None: ...
