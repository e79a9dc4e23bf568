"""Exceptions of the script as people want to read them: the place in their own file, and a traceback that ends there.

Owns which frames are shown: none of the server's own, and those of installed packages folded into one line. Runs in the
worker that is validated.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable
from typing import Any

from ..scripting import own_files

_PACKAGE = re.compile(r"[/\\](?:site|dist)-packages[/\\]([^/\\.]+)")
# How many exceptions before the last one are shown; they may refer to each other in a circle.
MOST_CAUSES = 5
# The folders that hold the user's own files.
Folders = tuple[str, ...]


def describe(error: BaseException, folders: Folders) -> dict[str, Any]:
    """What an event tells of an exception: its type and those it derives from, the message, the place in the user's
    file, and the traceback."""
    place = _place(error, folders)
    return {
        "type": type(error).__name__,
        "bases": [base.__name__ for base in type(error).__mro__],
        "message": str(error),
        "file": place[0] if place else None,
        "line": place[1] if place else None,
        "traceback": readable(error, folders),
    }


def _place(error: BaseException, folders: Folders) -> tuple[str, int] | None:
    """The user's own line: of the exception, or else of one that has caused it."""
    found = own_files.place_of(error, folders)
    if found is None and error.__cause__ is not None:
        return _place(error.__cause__, folders)
    return found


def readable(error: BaseException, folders: Folders, causes: int = MOST_CAUSES) -> str:
    """The traceback without frames of the server, in which those of others take one line a row."""
    lines: list[str] = []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and causes:
        link = "That caused:" if error.__cause__ is not None else "While that was handled, another exception followed:"
        lines += [readable(cause, folders, causes - 1), "", link, ""]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_of_server(frame.filename)]
    if frames:
        lines.append("Traceback (most recent call last):")
        lines += _folded(frames, folders)
    lines += [line.rstrip("\n") for line in traceback.format_exception_only(type(error), error)]
    return "\n".join(lines)


def _is_of_server(file: str) -> bool:
    return file.startswith((own_files.PACKAGE_FOLDER, "<frozen importlib"))


def _folded(frames: Iterable[traceback.FrameSummary], folders: Folders) -> list[str]:
    lines: list[str] = []
    others: list[str] = []

    def fold() -> None:
        if others:
            names = ", ".join(dict.fromkeys(others))
            lines.append(f"  ({len(others)} line{'s' * (len(others) > 1)} of {names} left out)")
            others.clear()

    for frame in frames:
        if own_files.name_of(frame.filename, folders) is not None:
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
    if file.startswith((own_files.LIBRARY_FOLDER, "<")):
        return "Python"
    return os.path.basename(file)
