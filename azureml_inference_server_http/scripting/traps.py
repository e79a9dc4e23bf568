"""Hints in the log about results and calls that look right in a script and do something else. Each is given once.

``note_result`` looks at results, ``note_refused_result`` at those that cannot be sent, ``note_response`` at responses,
and ``note_lost_logging`` at loggers. A hint is a warning, and never changes a reply. Runs in workers; with worker
threads several calls may be noted at once, and a hint may then come twice.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection
from typing import Any

_logger = logging.getLogger("azmlinfsrv")
_given: set[str] = set()

# The name of the root logger.
ROOT = "root"
# Parts of a result that are looked at in the search for a NaN.
_MOST_PARTS = 10_000


def note_result(result: Any) -> None:
    """A result of run() that was sent as JSON."""
    if isinstance(result, tuple) and len(result) in (2, 3) and is_status(result[1]):
        _hint(
            "status in tuple",
            f"run() returned a tuple with the status {result[1]}, which was sent as a JSON list with status 200. "
            "To choose the status, return AMLResponse({...}, 400, json_str=True).",
        )
    elif isinstance(result, str) and is_json_text(result):
        _hint(
            "JSON twice",
            "run() returned JSON text, which was sent as a string in quotes, so clients have to decode it twice. "
            "Return the value itself, without json.dumps().",
        )
    elif _has_no_number(result):
        _hint(
            "NaN",
            "The result of run() has a NaN or an infinity, which most clients refuse, because JSON has neither. "
            "Return None in place of it.",
        )


def note_refused_result(value: object) -> None:
    """A value in a result, because of which it could not be sent."""
    if isinstance(value, (set, frozenset)):
        _hint("set", "The result of run() has a set, which JSON does not have. Return a list: sorted(values).")


def note_response(message: object, as_json: bool) -> None:
    """The message that an AMLResponse is made from."""
    if not as_json and isinstance(message, (dict, list)):
        kind = type(message).__name__
        _hint(
            "response without json_str",
            f"AMLResponse was made from a {kind} without json_str=True, so its body is the {kind}'s items one after "
            "another, and not JSON. Write AMLResponse(value, 200, json_str=True).",
        )


def note_lost_logging(own_modules: Collection[str]) -> None:
    """Loggers of the script whose calls of info() went nowhere. ``own_modules`` are the names of its modules."""
    name = lost_logger(own_modules)
    if name is not None:
        _hint(
            "lost logging",
            f"The script calls {call_of_info(name)}, which writes nothing, because the root logger is at WARNING, and "
            "logging.basicConfig() does not change that. Call logging.getLogger().setLevel(logging.INFO), or use "
            'a logger of the server, such as logging.getLogger("azmlinfsrv.mine").',
        )


def lost_logger(own_modules: Collection[str]) -> str | None:
    """The first logger of the script whose calls of info() went nowhere; None if there is none."""
    names = {*own_modules, "entry_module"}
    for name, logger in [(ROOT, logging.getLogger()), *logging.Logger.manager.loggerDict.items()]:
        # What each logger has found out about a level so far; only calls put something there.
        levels = getattr(logger, "_cache", {})
        if (name == ROOT or name in names) and levels.get(logging.INFO) is False:
            return name
    return None


def call_of_info(logger: str) -> str:
    """How a script calls info() of this logger."""
    return "logging.info()" if logger == ROOT else f"logging.getLogger({logger!r}).info()"


def _hint(trap: str, text: str) -> None:
    if trap not in _given:
        _given.add(trap)
        _logger.warning("Hint: %s (Each worker says this once.)", text)


def is_status(value: object) -> bool:
    """Whether a value can be an HTTP status."""
    return isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599


def is_json_text(text: str) -> bool:
    """Whether a text is an object or a list in JSON. Texts such as "12" or "true" may be meant."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _has_no_number(result: Any) -> bool:
    """Whether one of the first parts of the result is a float that JSON does not have."""
    waiting = [result]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return False
        part = waiting.pop()
        if isinstance(part, float) and not math.isfinite(part):
            return True
        # Arrays of numpy, frames and series of pandas.
        for convert in ("to_numpy", "tolist"):
            part = getattr(part, convert, lambda unchanged=part: unchanged)()
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, (list, tuple)):
            waiting.extend(part)
    return False
