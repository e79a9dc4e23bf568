"""Logging: the line format, the worker-pid filter, and applying logging.json.

Owns the classes that a user's ``logging.json`` may name by dotted path (``AMLLogFormatter``,
``RootAccessFilter``), so those names are public. ``configure`` runs once in the launcher before the
first log record, and forked children inherit the result. A user's file may name classes of the
user's own, which then run in every process of the server. Rules: contract section 13.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

from . import json_log
from .launch import display as display_text
from .scripting import current_request
from .supervise import access_log

if TYPE_CHECKING:
    from .launch.display import Display
    from .launch.settings import Settings

LOGGER_NAME = "azmlinfsrv"
# The logger of the lines that gunicorn wrote to standard error. Tools that start the server wait
# for those lines (contract section 2).
PROCESS_LOGGER_NAME = "gunicorn.error"
DEFAULT_CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "logging.json")
_PRINT_LOGGER = "azmlinfsrv.print"
_ROOT_ACCESS = "GET / HTTP/1.1"


class LogConfigError(Exception):
    """A logging.json cannot be applied. The message names the file, the problem and the remedy."""


class AMLLogFormatter(logging.Formatter):
    """The standard formatter, but with times in UTC."""

    converter = time.gmtime  # type: ignore[assignment]


class TerminalFormatter(AMLLogFormatter):
    """The lines of the server on a terminal. Keeps what the script has printed last for the progress of init()."""

    def __init__(self, line_format: str | None, display: Display) -> None:
        super().__init__(line_format)
        self._display = display

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        progress = self._display.progress
        erasing = ""
        if progress is not None:
            if record.name == _PRINT_LOGGER:
                progress.note(record.getMessage())
            erasing = progress.erasing()
        return erasing + (display_text.record(line) if self._display.colour else line)


class RootAccessFilter(logging.Filter):
    """Drops lines about health probes. Kept because existing logging.json files attach it to an
    access logger."""

    def filter(self, record: logging.LogRecord) -> bool:
        return _ROOT_ACCESS not in record.getMessage()


class WorkerPidFilter(logging.Filter):
    """Sets the pid of a record to its ``worker_pid``, if it has one.

    The front writes the line of a request, but people attach debuggers to the pid that they read
    there. This is a filter of the logger and not of a handler, because a logger's filter runs
    before every handler, so that formatters of a user's own logging.json see the worker's pid as
    well.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        worker_pid = getattr(record, "worker_pid", None)
        if worker_pid is not None:
            # pyo3-log passes attributes as text.
            record.process = int(worker_pid)
        return True


class LoggerState:
    """The server's logger at one moment, with all objects that decide how its records are
    written."""

    def __init__(self) -> None:
        self._parts = list(_parts_of_logger())

    def has_changed(self) -> bool:
        """True if any of these objects has been replaced since. They are compared by identity,
        because a class of the user's own may define equality as it likes."""
        parts = list(_parts_of_logger())
        return len(parts) != len(self._parts) or any(new is not old for new, old in zip(parts, self._parts))


def _parts_of_logger() -> Iterator[object]:
    logger: logging.Logger | None = logging.getLogger(LOGGER_NAME)
    yield logging.getLogRecordFactory()
    yield logging.Logger.manager.disable
    while logger is not None:
        yield from _parts(logger)
        for handler in logger.handlers:
            yield from _parts(handler)
            yield from _parts(getattr(handler, "formatter", None))
        logger = logger.parent if logger.propagate else None


def _parts(part: object) -> Iterator[object]:
    """An object, its type, its attributes and its filters, because a script may also replace a
    method, or the stream of a handler."""
    yield part
    yield type(part)
    yield from getattr(part, "__dict__", {}).values()
    if isinstance(part, logging.Filterer):
        yield from part.filters


def configure(settings: Settings) -> str:
    """Apply the package's logging.json, then the user's file over it, if there is one.

    The user's file is ``logging.json`` in the app root, or else in the entry script's folder. It
    alone decides about levels. Without it, ``settings.log_level`` (AZUREML_LOG_LEVEL) becomes the
    level of the ``azmlinfsrv`` loggers. Logs and returns the path of the last file applied. Raises
    ``LogConfigError``.
    """
    current_request.add_ids_to_log_records()
    _apply(DEFAULT_CONFIG, _read(DEFAULT_CONFIG))
    path = find_user_config(settings)
    logger = logging.getLogger(LOGGER_NAME)
    if path is None:
        logger.setLevel(settings.log_level)
        if settings.display.json_log is not None:
            json_log.install(settings.display.json_log)
        elif settings.display.colour or settings.display.progress is not None:
            _format_for_terminal(logger, settings.display)
    else:
        _apply_users(path)
    if not any(isinstance(existing, WorkerPidFilter) for existing in logger.filters):
        logger.addFilter(WorkerPidFilter())
    in_force = path or DEFAULT_CONFIG
    logger.info("Loaded logging config from %s", in_force)
    return in_force


def _format_for_terminal(logger: logging.Logger, display: Display) -> None:
    for handler in logger.handlers:
        if handler.formatter is not None:
            handler.setFormatter(TerminalFormatter(handler.formatter._fmt, display))


def find_user_config(settings: Settings) -> str | None:
    """The path of the user's logging.json, or None. A folder of that name counts too, because
    ``configure`` then fails with a clear message."""
    return next((path for path in user_config_paths(settings) if os.path.exists(path)), None)


def user_config_paths(settings: Settings) -> list[str]:
    """The paths at which the user's logging.json may be. The first one that exists counts."""
    folders = [settings.app_root]
    if settings.entry_script:
        folders.append(os.path.dirname(os.path.join(settings.app_root, settings.entry_script)))
    return [os.path.join(folder, "logging.json") for folder in folders]


def _apply_users(path: str) -> None:
    """Apply the user's file. If its handlers start threads, each forked child applies the file
    again, because a forked child has none of its parent's other threads."""
    launcher, threads_before = os.getpid(), threading.active_count()
    _apply_and_guard(path)
    if threading.active_count() == threads_before or not hasattr(os, "register_at_fork"):
        return

    def apply_again() -> None:
        # Only in children of the launcher: processes that a worker forked had no such threads with
        # 1.5.1 either.
        if os.getppid() == launcher:
            _apply_and_guard(path)

    os.register_at_fork(after_in_child=apply_again)


def _apply_and_guard(path: str) -> None:
    config = _read(path)
    if access_log.is_named(config):
        # 1.5.1 had set these before it applied the file. The file replaces the parts that it names
        # and keeps the others.
        logger = logging.getLogger(access_log.NAME)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.filters[:] = [WorkerPidFilter(), RootAccessFilter()]
    _apply(path, config)
    _enable_own_loggers()
    for logger in (logging.getLogger(), *_own_loggers()):
        if not isinstance(logger.filter, _Guarded):
            logger.filter = _Guarded(logger.filter)  # type: ignore[method-assign]
        for handler in logger.handlers:
            if not isinstance(handler.handle, _Guarded):
                handler.handle = _Guarded(handler.handle)  # type: ignore[method-assign]


class _Guarded:
    """Wraps a method of a logger or handler that may call classes of the user's own.

    If such a class raises an exception, the record is lost, and the traceback is written to
    standard error. The exception must not end the supervisor, the front or a worker.
    """

    def __init__(self, method: Callable[[logging.LogRecord], Any]) -> None:
        self._method = method

    def __call__(self, record: logging.LogRecord) -> Any:
        try:
            return self._method(record)
        except Exception:
            logging.NullHandler().handleError(record)
            return False


def wants_access_lines() -> bool:
    """True if the user's logging.json names the logger of access lines, and its level lets them
    pass."""
    logger = logging.getLogger(access_log.NAME)
    is_set_up = any(isinstance(existing, WorkerPidFilter) for existing in logger.filters)
    return is_set_up and logger.isEnabledFor(logging.INFO) and logger.hasHandlers()


def _apply(path: str, config: dict[str, Any]) -> None:
    try:
        logging.config.dictConfig(config)
    except Exception as exc:  # dictConfig raises whatever a handler's constructor raises
        reason = exc if exc.__cause__ is None else f"{exc} ({exc.__cause__})"
        raise LogConfigError(
            f"Invalid logging config {path}: {reason}. Correct it as described for logging.config.dictConfig, "
            "or remove the file to use the server's own logging config."
        ) from exc


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            config = json.load(file)
    except (OSError, ValueError, RecursionError) as exc:
        raise LogConfigError(
            f"Cannot read logging config {path}: {exc}. It has to be a UTF-8 file with one JSON object; correct it, "
            "or remove the file to use the server's own logging config."
        ) from exc
    if not isinstance(config, dict):
        raise LogConfigError(
            f"Invalid logging config {path}: it holds a JSON {type(config).__name__}, not an object. Write it as "
            "logging.config.dictConfig expects it, or remove the file to use the server's own logging config."
        )
    return config


def _enable_own_loggers() -> None:
    # dictConfig disables every existing logger that the file does not name, unless the file says
    # otherwise. If that disabled the server's loggers, a file that only formats the script's own
    # loggers would hide the server's errors.
    for logger in _own_loggers():
        logger.disabled = False


def _own_loggers() -> list[logging.Logger]:
    return [
        logger
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
        and (name in (LOGGER_NAME, PROCESS_LOGGER_NAME, access_log.NAME) or name.startswith(LOGGER_NAME + "."))
    ]
