"""Log records as JSON objects, one a line (``--log_format json``); docs/logs.md lists the fields.

Owns the form of the records that Python makes, and what becomes of text that is no log record: what a
script writes to ``sys.stdout`` and ``sys.stderr``, and tracebacks of uncaught exceptions. The front
writes its records in the same form (``src/logging/json_line.rs``). ``log_config.py`` decides which
format the log has.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from .launch.stdio import PatientStream

# Longest line in bytes. A pipe takes as much in one piece, so lines of several processes cannot mix.
MAX_LINE = 4096
# Longest text of a field, and longest JSON text of all values of ``extra``, in bytes.
_MAX_FIELD = 256
_MAX_EXTRA = 1000
# Enough for ``,"part":…,"parts":…`` and the end of the line.
_PART_FIELDS = 48
# Seconds that a line may wait for room in standard output.
_PATIENCE = 1.0

_SURROGATE = re.compile("[\ud800-\udfff]")
_IDS = ("request_id", "client_request_id", "trace_id")
# Attributes of every record, and those that the server adds.
_OWN_ATTRIBUTES = frozenset(
    {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "worker_pid", "color_message", *_IDS}
)


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object, or as several lines with one object each if its message is
    long."""

    def __init__(self, *_: Any, **__: Any) -> None:
        # The arguments of logging.config: a JSON line has no format and no style.
        super().__init__("%(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(self.lines(record))

    def lines(self, record: logging.LogRecord) -> list[str]:
        """The objects, without the ends of their lines."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        before = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": _shortened(record.levelname),
            "logger": _shortened(record.name),
        }
        head = f"{_dumps(before)[:-1]},"
        tail = _dumps(_fields(record))[1:-1]
        # With the traceback, if there is one.
        message = super().format(record)
        room = MAX_LINE - len(head.encode()) - len(tail.encode()) - _PART_FIELDS - len('"message":,')
        parts = list(_parts(message, room))
        if len(parts) == 1:
            return [f'{head}"message":{parts[0]},{tail}}}']
        return [
            f'{head}"message":{part},{tail},"part":{number},"parts":{len(parts)}}}'
            for number, part in enumerate(parts, 1)
        ]


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record behind its message. Those that are empty are left out."""
    found: dict[str, Any] = {"pid": record.process}
    if record.threadName and record.threadName != "MainThread":
        found["thread"] = _shortened(record.threadName)
    for name in _IDS:
        value = getattr(record, name, "")
        if value:
            found[name] = _shortened(str(value))
    if record.exc_info and record.exc_info[0] is not None:
        found["exception"] = _shortened(record.exc_info[0].__name__)
    extra, left_out = _extra(record)
    if extra:
        found["extra"] = extra
    if left_out:
        found["extra_left_out"] = left_out
    return found


def _extra(record: logging.LogRecord) -> tuple[dict[str, Any], int]:
    """What a log call has passed as ``extra``, and how many of its values have no room."""
    found: dict[str, Any] = {}
    left_out, room = 0, _MAX_EXTRA
    for name, value in vars(record).items():
        if name in _OWN_ATTRIBUTES:
            continue
        # JSON has no NaN and no infinity.
        is_plain = value is None or (isinstance(value, float) and math.isfinite(value))
        # Python refuses to write whole numbers of thousands of digits.
        is_plain = is_plain or (isinstance(value, int) and abs(value) < 1 << 64)
        shown: Any = value if is_plain else _shortened(_text(value))
        size = len(_dumps({str(name): shown}).encode())
        if size > room:
            left_out += 1
        else:
            room -= size
            found[str(name)] = shown
    return found, left_out


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:
        return f"<a {type(value).__name__} that has no text: {type(error).__name__}>"


def _shortened(text: str) -> str:
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= _MAX_FIELD:
        return text
    kept = encoded[:_MAX_FIELD].decode("utf-8", "ignore")
    return f"{kept}[... {len(encoded) - len(kept.encode())} bytes left out ...]"


def _dumps(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Lone surrogates, such as bytes that are no text (surrogateescape), have no form in UTF-8, and parsers such as jq
    # refuse their escapes. They are shown as text.
    return text if text.isascii() else _SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)


def _parts(message: str, room: int) -> Iterator[str]:
    """The message as JSON texts of at most ``room`` bytes, at least one."""
    message = message.encode("utf-8", "backslashreplace").decode()
    if not message:
        yield '""'
    while message:
        count = min(len(message), room)
        while True:
            part = _dumps(message[:count])
            size = len(part.encode())
            if size <= room or count == 1:
                break
            count = max(1, count * room // size)
        yield part
        message = message[count:]


# Before Python 3.11 this class takes no type in brackets.
class JsonHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes records as JSON lines, each line by itself, so that a pipe takes it in one piece."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._json = JsonFormatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            for line in self._json.lines(record):
                self.stream.write(line + "\n")
            self.flush()
        except Exception:
            self.handleError(record)


def install(descriptor: int) -> None:
    """Write the whole log of this process, and of the processes that it forks, as JSON lines to this
    descriptor: the records of all loggers, warnings, what is written to ``sys.stdout`` and
    ``sys.stderr``, and tracebacks of uncaught exceptions."""
    if isinstance(sys.stderr, _LoggedStream):
        return
    stream: Any = sys.stdout
    if sys.platform != "win32":
        stream = PatientStream(descriptor)
        stream.patience = _PATIENCE
    handler = JsonHandler(stream)
    for name in (None, "azmlinfsrv", "gunicorn.error"):
        logging.getLogger(name).handlers[:] = [handler]
    logging.captureWarnings(True)
    sys.stdout = _LoggedStream(sys.stdout, handler, "azmlinfsrv.stdout", logging.INFO)
    errors = _LoggedStream(sys.stderr, handler, "azmlinfsrv.stderr", logging.WARNING)
    sys.stderr = errors
    sys.excepthook = errors.log_uncaught
    threading.excepthook = errors.log_uncaught_in_thread


class _LoggedStream(io.TextIOBase):
    """Stands for a standard stream: each line that is written to it becomes a record.

    Records go to the handler and not through a logger, so that no level drops them. A line is logged
    when it ends, or when its thread flushes the stream. Each thread has its own unfinished line. If a
    thread has ended, its line is logged when another thread writes or flushes.
    """

    def __init__(self, original: Any, handler: logging.Handler, logger: str, level: int) -> None:
        self._original = original
        self._handler = handler
        self._logger = logging.getLogger(logger)
        self._level = level
        # By the thread's ident, which a later thread can get again.
        self._unfinished: dict[int, tuple[threading.Thread, str]] = {}
        self._process = os.getpid()
        self._inside = threading.local()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    @property
    def buffer(self) -> Any:
        return self._original.buffer

    def fileno(self) -> int:
        return int(self._original.fileno())

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_: Any) -> None:
        """Does nothing: scripts call this for a TextIOWrapper."""

    def write(self, text: str) -> int:
        if getattr(self._inside, "is_logging", False):
            # The handler reports a failure of its own.
            self._original.write(text)
            self._original.flush()
            return len(text)
        # Progress bars end their text with a carriage return.
        *lines, rest = (self._take_own() + text).replace("\r", "\n").split("\n")
        if rest:
            self._unfinished[threading.get_ident()] = (threading.current_thread(), rest)
        for line in lines:
            if line:
                self._log(line, None)
        return len(text)

    def flush(self) -> None:
        """End the unfinished line of this thread, and those of threads that have ended. The lines of
        other threads go on, unless the process ends: the interpreter flushes the stream then."""
        if sys.is_finalizing():
            return self.end_all_lines()
        line = self._take_own()
        if line:
            self._log(line, None)
        self._end_lines(lambda thread: not thread.is_alive())

    def end_all_lines(self) -> None:
        """End the unfinished lines of all threads. Called when the process ends."""
        self._end_lines(lambda _: True)

    def _end_lines(self, ends: Callable[[threading.Thread], bool]) -> None:
        if self._process != os.getpid():
            # The lines of the other threads belong to the process that this one was forked from.
            self._process = os.getpid()
            own = self._unfinished.get(threading.get_ident())
            self._unfinished = {threading.get_ident(): own} if own else {}
        for ident, (thread, _) in list(self._unfinished.items()):
            if ends(thread):
                _, line = self._unfinished.pop(ident, (thread, ""))
                if line:
                    self._log(line, None)

    def _take_own(self) -> str:
        """The unfinished line of this thread, which may continue now."""
        thread, line = self._unfinished.pop(threading.get_ident(), (None, ""))
        if thread is None or thread is threading.current_thread():
            return line
        # The line of an earlier thread with the same ident.
        self._log(line, None)
        return ""

    def log_uncaught(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None, where: str = ""
    ) -> None:
        """Log an exception that nothing has caught. Called in place of ``sys.excepthook``."""
        self._log(f"Uncaught exception{where}", (kind, error, trace))

    def log_uncaught_in_thread(self, found: threading.ExceptHookArgs) -> None:
        """The same for ``threading.excepthook``."""
        if found.exc_type is not SystemExit and found.exc_value is not None:
            name = f" in thread {found.thread.name}" if found.thread else ""
            self.log_uncaught(found.exc_type, found.exc_value, found.exc_traceback, name)

    def _log(self, text: str, exc_info: Any) -> None:
        self._inside.is_logging = True
        try:
            record = self._logger.makeRecord(self._logger.name, self._level, "", 0, "%s", (text,), exc_info)
            self._handler.handle(record)
        finally:
            self._inside.is_logging = False
