"""How many requests a server works at together, as far as its settings and the text of the script tell.

Used where the script is not run: to plan a deployment (``generate/facts.py``, ``replica/arguments.py``). Reads the file
of the script, and does nothing else.
"""

from __future__ import annotations

import ast
from pathlib import Path

from .settings import DEFAULT, Settings


def requests_at_once(given: Settings, script: Path) -> int:
    """Calls of an async run(), requests of the batches, or calls of a plain run(), of all workers together. An async
    run() that the script imports counts only if --max_concurrency was given."""
    if given.origins["max_concurrency"].kind != DEFAULT or _has_async_run(script):
        return given.worker_count * given.max_concurrency
    return given.calls_at_once * given.max_batch_size


def _has_async_run(script: Path) -> bool:
    try:
        body = ast.parse(script.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return False  # the server tells of it when it loads the script
    return any(isinstance(part, ast.AsyncFunctionDef) and part.name == "run" for part in body)
