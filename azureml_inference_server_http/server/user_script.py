"""The exception classes for errors of the user's script.

They must stay in this module, because tracebacks in the log end with their qualified names
(contract sections 4 and 8), and people search for those. ``scripting/loading.py`` and
``scripting/script.py`` raise and log them. Used in worker processes.
"""

from __future__ import annotations


class ScriptLoadError(Exception):
    """The script cannot be served. The worker that loads it exits with code 3, and so does the
    server."""


class UserScriptImportException(ScriptLoadError):
    """The script could not be imported; the cause is the exception that stopped the import."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or "Failed to import user script because it raised an unhandled exception")


class UserScriptError(ScriptLoadError):
    """The script was imported, but its init() or run() is missing or cannot be called by the
    server."""


class UserScriptException(Exception):
    """init() or run() raised; the cause is the exception."""

    def __init__(self) -> None:
        super().__init__("Caught an unhandled exception from the user script")


class UserScriptTimeout(Exception):
    """run() did not return within SCORING_TIMEOUT_MS."""

    def __init__(self, timeout_ms: int) -> None:
        super().__init__(f"Script failed to finish execution within the allocated time: {timeout_ms}ms")
        self.timeout_ms = timeout_ms


class CannotServe(SystemExit):
    """The application for tests (``create_app.create()``) cannot be made. ``explanation`` has the
    script's traceback.

    A SystemExit with code 3, because that is what tests of scripts have always got.
    """

    def __init__(self, explanation: str) -> None:
        super().__init__(3)
        self.explanation = explanation
