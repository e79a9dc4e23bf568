"""Public: ``rawhttp`` and ``AMLRequest`` for scripts that want the HTTP request itself.

Importing this module imports Flask, so the server itself does so only for scripts that did. Runs in worker processes.
Rules: contract section 11.
"""

from __future__ import annotations

from typing import Callable, TypeVar

from flask import Request

__all__ = ["AMLRequest", "rawhttp"]

_Function = TypeVar("_Function", bound=Callable[..., object])
_raw_requested = False


class AMLRequest(Request):
    """The request type for annotations in scripts. What run() receives is ``flask.request``."""


def rawhttp(function: _Function) -> _Function:
    """Ask for raw HTTP requests: run() is called with ``flask.request`` for GET, POST, HEAD and OPTIONS.

    Returns the function unchanged. The switch belongs to the process, not to the function: decorating any
    function has the same effect.
    """
    global _raw_requested
    _raw_requested = True
    return function


def raw_requested() -> bool:
    """Whether anything was decorated with ``rawhttp``. Read once, after the script was imported."""
    return _raw_requested
