"""JSON paths: which parts of an answer a user has left out.

Owns their syntax, and when one names a place. Pure functions.
"""

from __future__ import annotations

import re
from typing import Union

Step = Union[str, int]
Path = tuple[Step, ...]
# A path that a user wrote, read: each step is a key, an index, ANY or DEEP.
Pattern = tuple[object, ...]
# ANY matches one step, DEEP any number of them.
ANY, DEEP = object(), object()
_PATTERN_STEP = re.compile(
    r"""\.\.(?=[\w*\[-])(?P<deep>)|\.?(?P<any>\*)|\[(?P<any_index>\*)\]|\.?(?P<key>[\w-]+)|\[(?P<index>-?\d+)\]"""
    r"""|\[(?P<quote>['"])(?P<quoted>.*?)(?P=quote)\]"""
)


class PathError(ValueError):
    """A JSON path that cannot be read."""


def parse(text: str) -> Pattern:
    """A JSON path such as ``$.a[0].b``, ``$.rows[*]['the name']`` or ``$..time`` as a pattern. Raises PathError."""
    rest = text[1:] if text.startswith("$") else f".{text}"
    steps: list[object] = []
    at = 0
    while at < len(rest):
        match = _PATTERN_STEP.match(rest, at)
        if match is None:
            raise PathError(f"{text!r} is no JSON path: write it like $.rows[0].name, $.rows[*].time or $..time")
        if match["deep"] is not None:
            steps.append(DEEP)
            # The second dot belongs to the key that follows, if one does.
            at = match.end() - (rest[match.end()] != "[")
            continue
        if match["any"] or match["any_index"]:
            steps.append(ANY)
        elif match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(match["key"] if match["key"] is not None else match["quoted"])
        at = match.end()
    if not steps:
        raise PathError("$ alone would leave out the whole answer")
    return tuple(steps)


def is_matched(path: Path, pattern: Pattern) -> bool:
    """Whether a pattern names this place."""
    if not pattern:
        return not path
    first, rest = pattern[0], pattern[1:]
    if first is DEEP:
        return any(is_matched(path[begin:], rest) for begin in range(len(path) + 1))
    return bool(path) and (first is ANY or first == path[0]) and is_matched(path[1:], rest)
