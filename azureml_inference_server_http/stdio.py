"""Standard streams: all three open from the start, and a log that nobody has to wait for.

A pipe that nobody reads fills up, and then blocks whoever writes to it. The supervisor must not wait for that, as it
has children to replace and signals to obey, nor a worker for more than a moment. Non-blocking mode is no way out: it
belongs to the open file, which other processes share. ``open_missing`` runs in the launcher; the supervisor makes the
stream of the log, and its children inherit it. The front writes its records itself (``src/logging.rs``).
"""

from __future__ import annotations

import collections
import contextlib
import logging
import math
import os
import select
import sys
import time
from typing import Callable, TextIO

from . import shortage

# What a pipe takes without blocking once it polls as writable (PIPE_BUF on Linux; POSIX asks for 512).
_PIECE = getattr(select, "PIPE_BUF", 512)
# Lines that wait for a reader.
_MAX_LINES = 1000

_NAMES = ("stdin", "stdout", "stderr")


def open_missing() -> None:
    """Connect what the caller has closed (``azmlinfsrv >&-``) with the null device. The next files and sockets would
    get these numbers otherwise, and what is printed would go to them."""
    for descriptor, name in enumerate(_NAMES):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115  for good
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


class PatientStream:
    """Standard output for log handlers. Lines that it does not take now wait for the next ``flush``; of too many, the
    oldest are dropped. Lines that a full disk refuses are lost. Both are reported when lines can be written again."""

    def __init__(self, descriptor: int = 1, encoding: str = "utf-8") -> None:
        self.descriptor = descriptor
        self._encoding = encoding
        self._lines: collections.deque[bytes] = collections.deque()
        # The rest of a line of which a part has been written.
        self._begun = b""
        self._is_flushing = False
        # Seconds that a flush may take if the one before it got rid of everything: a reader may just be slow.
        self.patience = 0.0
        # Lines that are gone because nobody read, and because writing failed with the error of this text.
        self.dropped = 0
        self._lost = 0
        self._reason = ""
        # Logs a text about lines that are gone.
        self.report: Callable[[str], None] = lambda text: None

    @property
    def is_waiting(self) -> bool:
        return bool(self._begun or self._lines)

    def write(self, text: str) -> None:
        if self.patience and sys.__stdout__ is not None:
            # What the script has written there itself comes first, as it always did.
            with contextlib.suppress(OSError, ValueError):
                sys.__stdout__.flush()
        # A part of the last line may have been written when that failed.
        begin = "\n" if self._lost and not self._lines else ""
        self._lines.append((begin + text).encode(self._encoding, "backslashreplace"))
        if len(self._lines) > _MAX_LINES:
            self._lines.popleft()
            self.dropped += 1

    def flush(self) -> None:
        """Write what can be written in time."""
        # A signal handler that logs may interrupt this very loop.
        if self._is_flushing:
            return
        self._is_flushing = True
        try:
            self._write_lines()
        except BrokenPipeError:
            # A reader that has gone away wants no more lines.
            self.forget()
        except OSError as error:
            return self._lose(error)
        finally:
            self._is_flushing = False
        if not self.is_waiting:
            self._report_gone()

    def _lose(self, error: OSError) -> None:
        """Drop what waits, as a regular file never polls as full. The next line is tried again."""
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
        """Drop what waits: in a forked child it is not this one's to write."""
        self._lines.clear()
        self._begun = b""
        self.dropped = self._lost = 0

    def _is_writable(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLOUT)
        return bool(poll.poll(math.ceil(seconds * 1000)))


def take_over_log(logger: logging.Logger) -> PatientStream:
    """Let those handlers that write to standard output write to the stream that is returned."""
    stream = PatientStream(encoding=sys.stdout.encoding or "utf-8")
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
            handler.setStream(stream)
    stream.report = logger.warning
    return stream


def stream_of_log(logger: logging.Logger) -> TextIO | PatientStream:
    """Where to print what is no log record but belongs between them."""
    streams = (getattr(handler, "stream", None) for handler in logger.handlers)
    return next((stream for stream in streams if isinstance(stream, PatientStream)), sys.stdout)
