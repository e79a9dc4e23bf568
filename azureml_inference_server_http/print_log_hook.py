"""Replaces ``print``, so that text that a script prints to standard output becomes a log record.

It changes ``builtins.print`` only: ``sys.stdout`` and the descriptors are left alone, so
``sys.stdout.write`` works as usual. Installed before the script is loaded. Rules: contract section
13.
"""

from __future__ import annotations

import builtins
import logging
import sys
import threading
from typing import Any

_logger = logging.getLogger("azmlinfsrv.print")
_KNOWN_KEYWORDS = frozenset({"sep", "end", "file", "flush"})
_original_print = builtins.print
_inside = threading.local()


def install() -> None:
    """Replace ``print``. From now on printing to standard output logs at INFO with logger
    ``azmlinfsrv.print``."""
    builtins.print = print_to_logger


def uninstall() -> None:
    """Restore Python's ``print``."""
    builtins.print = _original_print


def print_to_logger(*objects: Any, **keywords: Any) -> None:
    # A log handler of the user's own logging.json may print. The flag ``_inside.logging`` prevents
    # endless recursion.
    if not _goes_to_log(keywords) or getattr(_inside, "logging", False):
        _original_print(*objects, **keywords)
        return
    separator = keywords.get("sep")
    text = (" " if separator is None else separator).join(map(str, objects))
    _inside.logging = True
    try:
        _logger.info("%s", text)
    finally:
        _inside.logging = False


def _goes_to_log(keywords: dict[str, Any]) -> bool:
    """True if this call of print writes to standard output. A call with wrong keywords is passed to
    Python's print, which raises the error."""
    if not _KNOWN_KEYWORDS.issuperset(keywords):
        return False
    if not isinstance(keywords.get("sep"), (str, type(None))) or not isinstance(keywords.get("end"), (str, type(None))):
        return False
    target = keywords.get("file")
    return _is_stdout(sys.stdout if target is None else target)


def _is_stdout(target: Any) -> bool:
    if target is sys.__stdout__:
        return target is not None
    # contextlib.redirect_stdout puts a buffer or another file there: that text was meant for it,
    # not for the log. A wrapper around the real stdout still has its descriptor.
    try:
        return bool(target.fileno() == 1)
    except Exception:
        return False


print_to_logger.__name__ = print_to_logger.__qualname__ = "print"
