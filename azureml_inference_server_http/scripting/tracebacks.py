"""Tracebacks as users see them: without the server's own frames at their beginning.

Users look for a line of their own. Runs in workers.
"""

from __future__ import annotations

import importlib
import os
import traceback
from types import TracebackType

from .own_files import PACKAGE_FOLDER

_SERVER = (
    PACKAGE_FOLDER,
    "<frozen importlib",
    os.path.dirname(importlib.__file__) + os.sep,
    os.path.join(os.path.dirname(os.__file__), "asyncio", ""),
)


# The notes of an exception that are shown. Python 3.14 adds one for each level of a value that json cannot write, which
# are 65,000 for a list that is nested too deeply.
MOST_NOTES = 20


def text_of(exc: BaseException) -> str:
    """The traceback text without the server's frames at its beginning."""
    for each in (exc, exc.__cause__):
        shorten_notes(getattr(each, "__notes__", None))
    if exc.__cause__ is not None:
        exc.__cause__.__traceback__ = without_leading(exc.__cause__.__traceback__)
    shown = without_leading(exc.__traceback__)
    return "".join(traceback.format_exception(type(exc), exc, shown))


def caused(failure: Exception, cause: BaseException) -> str:
    """The traceback text of ``cause``, followed by ``failure`` as the exception that it has
    caused."""
    failure.__cause__ = cause
    return text_of(failure)


def shorten_notes(notes: object) -> None:
    """Replace what is in the middle of a long list of notes by its number."""
    if isinstance(notes, list) and len(notes) > MOST_NOTES:
        notes[MOST_NOTES // 2 : -MOST_NOTES // 2] = [f"({len(notes) - MOST_NOTES} more notes)"]


def without_leading(trace: TracebackType | None, files: tuple[str, ...] = _SERVER) -> TracebackType | None:
    """The traceback from its first frame on whose file does not begin with one of ``files``."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(files):
        trace = trace.tb_next
    return trace
