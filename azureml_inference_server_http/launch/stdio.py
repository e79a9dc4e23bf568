"""Standard streams: opens those that are closed, and writes the log without waiting for its reader.

A pipe that nobody reads fills up, and then blocks every process that writes to it. The supervisor
must never wait for that, because it has children to replace and signals to obey, and a worker may
wait only for a moment. The pipe cannot be made non-blocking, because that mode belongs to the open
file, which other processes share. ``open_missing`` runs in the launcher. The supervisor makes the
stream of the log, and its children inherit it. The front writes its log records itself
(``src/logging/mod.rs``).
"""

from __future__ import annotations

import collections
import contextlib
import io
import logging
import math
import os
import select
import sys
import time
from typing import Any, Callable, TextIO

from ..supervise import shortage

# Bytes that a pipe takes without blocking when poll() reports it as writable. POSIX guarantees 512.
_PIECE = getattr(select, "PIPE_BUF", 512)
# Looked up before the script is loaded. eventlet's patch removes it from the module. gevent's patch replaces it by a
# function that switches greenlets, which must not happen while a log line is written. Windows has none.
_poll: Any = getattr(select, "poll", None)
# Lines that are kept while nobody reads. Beyond that the oldest are dropped.
_MAX_LINES = 1000

_NAMES = ("stdin", "stdout", "stderr")


def flush_standard_streams() -> None:
    """Write what standard output and error have buffered. Does not fail if a stream's reader has
    gone, or if the script has closed or removed the stream, because neither may end the server."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def finish_standard_streams() -> None:
    """Write what standard output and error have buffered, because this process ends now."""
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            # A stream of ``json_log.py`` has unfinished lines of other threads. Others have no such method.
            stream.end_all_lines()
    flush_standard_streams()


def open_missing() -> None:
    """Open the null device for each standard stream that the caller has closed (``azmlinfsrv
    >&-``).

    Otherwise the next files and sockets would get these descriptors, and printed text would go to
    them.
    """
    for descriptor, name in enumerate(_NAMES):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            # The lowest free descriptor, which is this one. Not on Windows, where a program without
            # a console has three that are neither open nor free.
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  for good
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def write_as_the_front_does() -> None:
    """Windows: let standard output and error write UTF-8, with the line ends of Linux, as the front does in Rust.

    Python would use the system's code page for a pipe or a file, such as 1252, in which most characters cannot be
    written. Then the log would lose records, and no program could read the mixture.
    """
    if sys.platform == "win32":
        for stream in (sys.stdout, sys.stderr):
            # Not a TextIOWrapper: a test or another program has replaced it, and knows how it writes.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


class PatientStream:
    """Standard output for log handlers, without blocking.

    Lines that cannot be written now wait for the next ``flush``. If there are too many, the oldest
    are dropped. Lines that cannot be written because of an error, such as a full disk, are lost.
    When lines can be written again, a log record says how many are missing.
    """

    def __init__(self, descriptor: int = 1, encoding: str = "utf-8") -> None:
        self.descriptor = descriptor
        self._encoding = encoding
        self._lines: collections.deque[bytes] = collections.deque()
        # The unwritten rest of a line whose beginning has been written.
        self._begun = b""
        self._is_flushing = False
        # Seconds that a flush may wait for the reader. Only if no earlier line waits: then the
        # reader may just be slow.
        self.patience = 0.0
        # Lines that were dropped because nobody reads.
        self.dropped = 0
        # Lines that were lost because writing failed, and the error.
        self._lost = 0
        self._reason = ""
        # Logs a text about missing lines.
        self.report: Callable[[str], None] = lambda text: None

    @property
    def is_waiting(self) -> bool:
        return bool(self._begun or self._lines)

    def write(self, text: str) -> None:
        if self.patience and sys.__stdout__ is not None:
            # Text that the script has printed before this line must be written before it.
            with contextlib.suppress(OSError, ValueError):
                sys.__stdout__.flush()
        # When writing failed, a part of the last line may have been written. The new line must not
        # continue it.
        begin = "\n" if self._lost and not self._lines else ""
        self._lines.append((begin + text).encode(self._encoding, "backslashreplace"))
        if len(self._lines) > _MAX_LINES:
            self._lines.popleft()
            self.dropped += 1

    def flush(self) -> None:
        """Write the lines that wait, as far as they can be written without waiting longer than
        ``patience``."""
        # A signal handler that logs may interrupt this method, and call it again.
        if self._is_flushing:
            return
        self._is_flushing = True
        try:
            self._write_lines()
        except BrokenPipeError:
            # The reader has closed the pipe, so nobody would see the lines.
            self.forget()
        except OSError as error:
            return self._lose(error)
        finally:
            self._is_flushing = False
        if not self.is_waiting:
            self._report_gone()

    def _lose(self, error: OSError) -> None:
        """Drop the lines that wait, because poll() never reports when a full disk has room again.
        The next line is tried again."""
        first = self._lost == 0
        self._lost += len(self._lines) + bool(self._begun)
        self._reason = f"standard output: {error.strerror or error}"
        self._lines.clear()
        self._begun = b""
        if first and sys.__stderr__ is not None:
            with contextlib.suppress(OSError, ValueError):
                text = f"azmlinfsrv: the log cannot be written to standard output: {shortage.explain(error)}\n"
                sys.__stderr__.write(text)
                sys.__stderr__.flush()

    def _report_gone(self) -> None:
        dropped, self.dropped = self.dropped, 0
        lost, self._lost = self._lost, 0
        if dropped:
            self.report(f"{dropped} log records were dropped: nobody read standard output")
        if lost:
            self.report(f"{lost} log records were lost: {self._reason}")

    def _write_lines(self) -> None:
        is_first_try = not self._begun and len(self._lines) < 2
        deadline = time.monotonic() + (self.patience if is_first_try else 0.0)
        while self.is_waiting and self._is_writable(max(0.0, deadline - time.monotonic())):
            self._begun = self._begun or self._lines.popleft()
            written = os.write(self.descriptor, self._begun[:_PIECE])
            self._begun = self._begun[written:]

    def forget(self) -> None:
        """Drop the lines that wait. Called in a forked child, because the parent writes them."""
        self._lines.clear()
        self._begun = b""
        self.dropped = self._lost = 0

    def _is_writable(self, seconds: float) -> bool:
        poll = _poll()
        poll.register(self.descriptor, select.POLLOUT)
        return bool(poll.poll(math.ceil(seconds * 1000)))


def separate_log() -> int:
    """A descriptor of standard output for the log alone. From now on descriptor 1 is standard error,
    also in children, so that whatever native code or a child process writes there gets no place
    between the lines of the log."""
    sys.stdout.flush()
    if sys.platform == "win32":
        return 1
    log = os.dup(1)
    os.dup2(2, 1, inheritable=True)
    return log


def take_over_log(logger: logging.Logger) -> PatientStream:
    """Replace standard output by a PatientStream in the handlers of this logger. Returns the
    stream. A JSON log has one from the start, which does not wait any more."""
    stream = stream_of_log(logger)
    if isinstance(stream, PatientStream):
        stream.patience = 0.0
    else:
        stream = PatientStream(encoding=sys.stdout.encoding or "utf-8")
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(stream)
    stream.report = logger.warning
    return stream


def stream_of_log(logger: logging.Logger) -> TextIO | PatientStream:
    """The stream for lines that are no log records but must keep their place between log
    records."""
    streams = (getattr(handler, "stream", None) for handler in logger.handlers)
    return next((stream for stream in streams if isinstance(stream, PatientStream)), sys.stdout)
