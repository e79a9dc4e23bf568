"""Public: ``raw_v2`` and ``InferenceRequest``, for scripts that take and return tensors by the Open Inference
Protocol (``--protocols score,v2``).

Imports nothing, numpy least of all: the server makes the arrays (``scripting/open_inference.py``). Runs in workers.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple, TypeVar

__all__ = ["InferenceRequest", "raw_v2"]

_Function = TypeVar("_Function", bound=Callable[..., object])
# The attribute that marks a decorated function. ``functools.wraps`` passes it on to a wrapper.
MARK = "__azmlinfsrv_raw_v2__"


class InferenceRequest(NamedTuple):
    """What run() gets if it is decorated with ``raw_v2``.

    ``inputs``: the tensors by name, as numpy arrays. They may be changed. The elements of a BYTES tensor are ``bytes``.
    ``parameters``: those of the request. ``id``: that of the request, None if it has none. ``outputs``: the names of
    the tensors that the client asks for, empty for all.
    """

    inputs: dict[str, Any]
    parameters: dict[str, Any]
    id: str | None
    outputs: tuple[str, ...]
    model_name: str
    model_version: str


def raw_v2(function: _Function) -> _Function:
    """Decorator: run() is called with an ``InferenceRequest``, and returns arrays: a dict by name, a list, or one.

    Returns the function itself.
    """
    setattr(function, MARK, True)
    return function
