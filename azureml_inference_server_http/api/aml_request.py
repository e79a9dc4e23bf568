"""Public: ``rawhttp`` and ``AMLRequest``, for scripts that need the HTTP request itself.

Importing this module imports Flask, so the server imports it only if the script has. Runs in
workers. Rules: contract section 11.
"""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from flask import Request

__all__ = ["AMLRequest", "rawhttp"]

_Function = TypeVar("_Function", bound=Callable[..., object])
_raw_requested = False


class AMLRequest(Request):
    """The request type for annotations in scripts. run() gets ``flask.request``.

    ``AMLRequest(request)`` shares all attributes with ``request``, so both may read the body.
    Unlike ``flask.request`` it can be kept after run() has returned. ``AMLRequest(environ)`` works
    as for any Flask request.
    """

    def __init__(self, request: Any, *arguments: Any, **options: Any) -> None:
        if isinstance(request, Request):
            self.__dict__ = request.__dict__  # the request's own attributes, even if ``request`` is Flask's proxy
        else:
            super().__init__(request, *arguments, **options)


def rawhttp(function: _Function) -> _Function:
    """Decorator: run() is called with ``flask.request``, for GET, POST, HEAD and OPTIONS.

    Returns the function unchanged. It sets a flag of the process, so decorating any function has
    the same effect.
    """
    global _raw_requested
    _raw_requested = True
    return function


def raw_requested() -> bool:
    """True if any function was decorated with ``rawhttp``. The server calls this once, after it has
    imported the script."""
    return _raw_requested
