"""Exceptions of the script as people want to read them: the place in their own file, and a traceback that ends there.

Owns which frames are shown: none of the server's own, and those of installed packages folded into one line. Runs in the
worker that is validated.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable
from typing import Any, Callable

_PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_PACKAGE = re.compile(r"[/\\](?:site|dist)-packages[/\\]([^/\\.]+)")
_LIBRARY_FOLDER = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
# How many exceptions before the last one are shown; they may refer to each other in a circle.
MOST_CAUSES = 5
# Whether a file is the user's own.
IsOwn = Callable[[str], bool]


def describe(error: BaseException, is_own: IsOwn) -> dict[str, Any]:
    """What an event tells of an exception: its type and those it derives from, the message, the place in the user's
    file, and the traceback."""
    place = _place(error, is_own)
    return {
        "type": type(error).__name__,
        "bases": [base.__name__ for base in type(error).__mro__],
        "message": str(error),
        "file": place[0] if place else None,
        "line": place[1] if place else None,
        "traceback": readable(error, is_own),
    }


def _place(error: BaseException, is_own: IsOwn) -> tuple[str, int] | None:
    """The deepest line of the user's files. A syntax error names its own place, as its file was not run."""
    if isinstance(error, SyntaxError) and error.filename and is_own(error.filename):
        return error.filename, error.lineno or 1
    found = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if is_own(frame.f_code.co_filename):
            found = frame.f_code.co_filename, line
    if found is None and error.__cause__ is not None:
        return _place(error.__cause__, is_own)
    return found


def readable(error: BaseException, is_own: IsOwn, causes: int = MOST_CAUSES) -> str:
    """The traceback without frames of the server, in which those of others take one line a row."""
    lines: list[str] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and causes:
        link = "That caused:" if error.__cause__ is not None else "While that was handled, another exception followed:"
        lines += [readable(cause, is_own, causes - 1), "", link, ""]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_of_server(frame.filename)]
    if frames:
        lines.append("Traceback (most recent call last):")
        lines += _folded(frames, is_own)
    lines += [line.rstrip("\n") for line in traceback.format_exception_only(type(error), error)]
    return "\n".join(lines)


def _is_of_server(file: str) -> bool:
    return file.startswith((_PACKAGE_FOLDER, "<frozen importlib"))


def _folded(frames: Iterable[traceback.FrameSummary], is_own: IsOwn) -> list[str]:
    lines: list[str] = []
    others: list[str] = []

    def fold() -> None:
        if others:
            names = ", ".join(dict.fromkeys(others))
            lines.append(f"  ({len(others)} line{'s' * (len(others) > 1)} of {names} left out)")
            others.clear()

    for frame in frames:
        if is_own(frame.filename):
            fold()
            lines.append(f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}')
            if frame.line:
                lines.append(f"    {frame.line}")
        else:
            others.append(_owner(frame.filename))
    fold()
    return lines


def _owner(file: str) -> str:
    match = _PACKAGE.search(file)
    if match:
        return match[1]
    if file.startswith((_LIBRARY_FOLDER, "<")):
        return "Python"
    return os.path.basename(file)
