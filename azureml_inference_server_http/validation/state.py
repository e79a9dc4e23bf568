"""What grows in the script while it answers: containers in the globals of its modules, and in defaults of run().

Owns which objects are looked at and how large they are. Sizes are compared before and after a call; whether growth is
a finding is decided in ``detection.py``. Runs in the worker that is validated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

_CONTAINERS = (list, dict, set, bytearray, deque)


class Held(NamedTuple):
    """A container of the script: the file that has the name, and the name."""

    file: str
    name: str


def sizes(modules: Iterable[ModuleType], run: Any) -> dict[Held, int]:
    """The number of items in each container that the user's modules hold: in globals, in the attributes of objects of
    the user's own classes there, and in the defaults of ``run``."""
    found: dict[Held, int] = {}
    names = set()
    modules = list(modules)
    for module in modules:
        names.add(module.__name__)
    for module in modules:
        file = str(getattr(module, "__file__", "") or "")
        for name, value in _globals(module, names):
            found[Held(file, name)] = len(value)
    code = getattr(run, "__code__", None)
    for name, value in _defaults(run):
        found[Held(getattr(code, "co_filename", ""), f"the default of {name}")] = len(value)
    return found


def _globals(module: ModuleType, own: set[str]) -> Iterator[tuple[str, Any]]:
    for name, value in list(vars(module).items()):
        if name.startswith("__"):
            continue
        if isinstance(value, _CONTAINERS):
            yield name, value
        elif type(value).__module__ in own:
            for attribute, inner in list(getattr(value, "__dict__", {}).items()):
                if isinstance(inner, _CONTAINERS):
                    yield f"{name}.{attribute}", inner


def _defaults(run: Any) -> Iterator[tuple[str, Any]]:
    code, values = getattr(run, "__code__", None), getattr(run, "__defaults__", None) or ()
    if code is not None and values:
        names = code.co_varnames[: code.co_argcount][-len(values) :]
        for name, value in zip(names, values):
            if isinstance(value, _CONTAINERS):
                yield name, value
    for name, value in (getattr(run, "__kwdefaults__", None) or {}).items():
        if isinstance(value, _CONTAINERS):
            yield name, value


def grown(before: dict[Held, int], after: dict[Held, int]) -> list[tuple[Held, int, int]]:
    """The containers that have more items than before; those that are new are not among them."""
    return [(held, before[held], size) for held, size in after.items() if held in before and size > before[held]]
