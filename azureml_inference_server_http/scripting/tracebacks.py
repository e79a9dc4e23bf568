"""Tracebacks as users see them: without the server's own frames at their beginning.

Users look for a line of their own. Runs in workers.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from types import TracebackType
from typing import Any

from .own_files import PACKAGE_FOLDER

_SERVER = (
    PACKAGE_FOLDER,
    "<frozen importlib",
    os.path.dirname(importlib.__file__) + os.sep,
    os.path.join(os.path.dirname(os.__file__), "asyncio", ""),
)


# How many notes of an exception are shown. Python 3.14 adds one for each level of a value that json cannot write, which
# are 65,000 for a list that is nested too deeply.
MOST_NOTES = 20
# Exceptions whose text is not printed are left out, since Python 3.10.
_OPTIONS: dict[str, Any] = {"compact": True} if sys.version_info >= (3, 10) else {}


def text_of(exc: BaseException) -> str:
    """The traceback text without the server's frames at its beginning."""
    if exc.__cause__ is not None:
        exc.__cause__.__traceback__ = without_leading(exc.__cause__.__traceback__)
    shown = without_leading(exc.__traceback__)
    return "".join(_printed(exc, shown).format())


def ending_of(exc: BaseException) -> str:
    """The end of the traceback text: ``ValueError: text`` and the notes, also for exceptions whose text cannot be
    made."""
    return "".join(_printed(exc, None).format_exception_only()).strip()


def caused(failure: Exception, cause: BaseException) -> str:
    """The traceback text of ``cause``, followed by ``failure`` as the exception that it has
    caused."""
    failure.__cause__ = cause
    return text_of(failure)


def _printed(exc: BaseException, trace: TracebackType | None) -> traceback.TracebackException:
    """What is printed of an exception and those that belong to it. Notes are shortened here, because the exceptions are
    the script's."""
    # As the functions of ``traceback`` make it.
    printed = traceback.TracebackException(type(exc), exc, trace, **_OPTIONS)
    if sys.version_info >= (3, 11):
        pending = [printed]
        while pending:
            each = pending.pop()
            if each.__notes__ is not None:
                each.__notes__ = _shortened(each.__notes__)
            pending += filter(None, (each.__cause__, each.__context__, *(each.exceptions or ())))
    return printed


def _shortened(notes: list[str]) -> list[str]:
    """The notes. If there are more than ``MOST_NOTES``, a line with their number replaces those in the middle."""
    # A script can set ``__notes__`` to anything.
    if not isinstance(notes, (list, tuple)) or len(notes) <= MOST_NOTES:
        return notes
    half = MOST_NOTES // 2
    return [*notes[:half], f"({len(notes) - MOST_NOTES} more notes)", *notes[-half:]]


def without_leading(trace: TracebackType | None, files: tuple[str, ...] = _SERVER) -> TracebackType | None:
    """The traceback from its first frame on whose file does not begin with one of ``files``."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(files):
        trace = trace.tb_next
    return trace
