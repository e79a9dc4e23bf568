"""The result of a start by the command line, and the exceptions of what is replaced in it."""

from __future__ import annotations

from typing import Callable, NamedTuple

from azureml_inference_server_http.launch.settings import Settings

# The values that are allowed for a count, in messages.
COUNTS = "(it must be a whole number, 1 or more, at most 1000000000)"
WORKERS = "(it must be auto, or a whole number, 1 or more, at most 1000000000)"


class Outcome(NamedTuple):
    """The result of one start. ``settings`` are those with which the processes would have been
    started."""

    code: int
    out: str
    err: str
    settings: Settings | None


Start = Callable[..., Outcome]


class LogConfigError(Exception):
    """Replaces the exception class of log_config."""


class ListenError(Exception):
    """Replaces the exception class of listeners."""
