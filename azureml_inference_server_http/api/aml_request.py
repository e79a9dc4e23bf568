"""Public: ``rawhttp`` and ``AMLRequest`` for scripts that want the HTTP request itself.

Importing this module imports Flask, so the server itself does so only for scripts that did. Runs in worker processes.
Rules: contract section 11.
"""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from flask import Request

__all__ = ["AMLRequest", "rawhttp"]

_Function = TypeVar("_Function", bound=Callable[..., object])
_raw_requested = False


class AMLRequest(Request):
    """The request type for annotations in scripts. What run() receives is ``flask.request``.

    ``AMLRequest(request)`` is that request once more: it shares all that ``request`` has and will have, so both may
    read the body. Unlike ``flask.request`` it can be kept after run() has returned. ``AMLRequest(environ)`` works as
    for any Flask request.
    """

    def __init__(self, request: Any, *arguments: Any, **options: Any) -> None:
        if isinstance(request, Request):
            self.__dict__ = request.__dict__  # of the request itself also if this is Flask's proxy
        else:
            super().__init__(request, *arguments, **options)


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
