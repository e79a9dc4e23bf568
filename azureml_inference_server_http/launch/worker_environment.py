"""The variables that only one worker process gets (``--worker_env``), by the number of its slot.

Each worker has a slot: 0 to WORKER_COUNT - 1, and more for workers that the signal TTIN adds. A
worker that replaces another one takes over its slot (``supervise/workers.py``). Pure functions. Used
by the launcher, to check the value, and in worker processes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# Several entries are separated by one of these.
_SEPARATOR = re.compile(r"[;\n]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# {worker}, or {worker%4}: the remainder, for several workers on one device.
_PLACEHOLDER = re.compile(r"\{worker(?:%([1-9][0-9]{0,5}))?\}")
# Something that was meant to be a placeholder: words in braces, or the word with one brace only. JSON in a value is
# not: it has quotes.
_BRACES = re.compile(r"\{[A-Za-z_][^{}\"']*\}|\{\s*worker\b|\bworker(?:%[0-9]+)?\s*\}", re.IGNORECASE)


class EntryError(ValueError):
    """Why the variables cannot be read. The text has no part of a value, because values may be secrets."""


def parse(text: str) -> dict[str, str]:
    """The variables of ``NAME=VALUE;NAME=VALUE``, with placeholders. Raises EntryError."""
    found: dict[str, str] = {}
    for number, entry in enumerate(filter(None, map(str.strip, _SEPARATOR.split(text))), 1):
        name, equals, value = entry.partition("=")
        if not equals or _NAME.fullmatch(name) is None:
            raise EntryError(
                f"entry {number} is not NAME=VALUE; semicolons separate entries, and no value can have one"
            )
        if name in found:
            raise EntryError(f"{name} is given twice")
        wrong = _BRACES.search(_PLACEHOLDER.sub("", value))
        if wrong is not None:
            raise EntryError(f"the value of {name} has a brace that is not part of {{worker}} or {{worker%4}}")
        found[name] = value
    if not found:
        raise EntryError("no variable")
    return found


def variables(given: Mapping[str, str], slot: int) -> dict[str, str]:
    """The variables of the worker in this slot. ``given`` is a result of ``parse``."""

    def number(match: re.Match[str]) -> str:
        return str(slot % int(match[1]) if match[1] else slot)

    return {name: _PLACEHOLDER.sub(number, value) for name, value in given.items()}
