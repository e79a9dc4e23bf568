"""``azmlinfsrv validate`` as a command: options in, report and exit code out, and what a signal means.

Owns nothing of the check itself (``checks.py``). Runs in a process with one thread, which forks the server that is
checked.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from ..launch import display
from . import options, report
from .checks import Validation
from .findings import Kind
from .options import EXIT_FINDINGS, EXIT_USAGE, EXIT_VALID, UsageError


def main(argv: Sequence[str]) -> int:
    """Validate with these options. Returns the exit code."""
    started = time.monotonic()
    if not hasattr(os, "fork"):
        return _refuse("this system has no fork(), which the check needs: run it in Linux, such as in WSL")
    try:
        flags = options.parse(options.of_validate(), argv)
        if "explain" in flags:
            print(explain(flags["explain"]), end="")
            return EXIT_VALID
        validation = Validation(flags, options.sample_files(flags))
        _catch_signals()
        try:
            validation.check()
        finally:
            validation.abandon()
    except UsageError as error:
        return _refuse(str(error))
    except _Stopped as stopped:
        return stopped.die()
    return _write(validation.report(time.monotonic() - started), flags)


def _refuse(fault: str) -> int:
    print(f"azmlinfsrv validate: error: {fault}", file=sys.stderr)
    return EXIT_USAGE


def explain(kind: Kind) -> str:
    """A kind of finding, in full."""
    example = "\n".join(f"    {line}".rstrip() for line in kind.example.splitlines())
    head = f"{kind.code} {kind.name} ({kind.severity})"
    return f"{head}\n\n{kind.explanation}\n\n{kind.remedy}\n\nExample:\n\n".replace("`", "") + f"{example}\n"


# ---- The report


def _write(made: report.Report, flags: dict[str, Any]) -> int:
    format, file = flags.get("format", "text"), flags.get("output")
    if file:
        # People still want to see it.
        _print(report.text(made, _wants_colours(sys.stderr), _shows_marks(sys.stderr)), sys.stderr)
        try:
            with open(file, "w", encoding="utf-8") as output:
                output.write(report.render(made, format, colours=False, marks=True))
        except OSError as error:
            return _refuse(f"--output {file}: {error.strerror}")
    else:
        _print(report.render(made, format, _wants_colours(sys.stdout), _shows_marks(sys.stdout)), sys.stdout)
    return EXIT_VALID if made.is_valid else EXIT_FINDINGS


def _wants_colours(stream: Any) -> bool:
    is_interactive = display.is_interactive(os.environ, stream.isatty(), plain=False)
    return display.has_colour(os.environ, is_interactive, plain=False)


def _shows_marks(stream: Any) -> bool:
    return "utf" in (stream.encoding or "").lower()


def _print(words: str, stream: Any) -> None:
    """Write what the stream can write, and other characters as escapes. A reader may have gone away."""
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(words.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        # Python writes what is left at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# ---- Signals


class _Stopped(BaseException):
    """A signal wants the command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def die(self) -> int:
        """End as a program that has not caught the signal: a shell must see that."""
        signal.signal(self.number, signal.SIG_DFL)
        os.kill(os.getpid(), self.number)
        return 128 + self.number


def _catch_signals() -> None:
    """Let signals end the server that is checked before they end this process."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise _Stopped(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)
