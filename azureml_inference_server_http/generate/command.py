"""``azmlinfsrv generate`` as a command: options in, files out, and what to do next.

Owns the order of the steps, and that no file of the user is lost. Runs in the command, which has one thread.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..launch import settings
from ..launch.config_file import ConfigFileError
from . import demands, facts, measuring, options
from .options import EXIT_REFUSED, EXIT_USAGE, EXIT_WRITTEN, UsageError


def main(argv: Sequence[str]) -> int:
    """Write the files that are asked for. Returns the exit code."""
    try:
        flags = options.parse(argv)
        raw = settings.RawSettings(flags, os.environ, os.getcwd())
        return _generate(flags, raw, settings.load(raw))
    except settings.SettingsError as error:
        return _refuse(*error.lines)
    except (UsageError, ConfigFileError) as error:
        return _refuse(str(error))


def _generate(flags: dict[str, Any], raw: settings.RawSettings, given: settings.Settings) -> int:
    kinds = list(dict.fromkeys(flags["kinds"]))
    # What is wrong with the files is said before anything is started.
    demands.check(kinds, facts.gather(flags, raw, given, None)[0])
    measured = _measure(flags)
    known, notes = facts.gather(flags, raw, given, measured.found)
    # Not before the script was measured: it must find the modules that it would find in production.
    from . import rendering

    shown_out = flags.get("out", ".")
    out = Path(raw.folder, shown_out)
    texts = {path: text for kind in kinds for path, text in rendering.files(kind, known).items()}
    try:
        differing = [path for path, text in texts.items() if not _is_absent_or_equal(out / path, text)]
    except OSError as error:
        return _refuse(f"{error.filename} cannot be read: {error.strerror}")
    if differing and not flags.get("force"):
        shown = ", ".join(str(Path(shown_out, path)) for path in differing)
        print(f"azmlinfsrv generate: error: nothing is written, because {shown} would change.", file=sys.stderr)
        print("Move what you want to keep, write elsewhere with --out DIR, or overwrite with --force.", file=sys.stderr)
        return EXIT_REFUSED
    try:
        for path, text in texts.items():
            _write(out / path, text)
    except (FileExistsError, NotADirectoryError) as error:
        return _refuse(f"{error.filename} cannot be a folder, because there is a file: name another with --out")
    except OSError as error:
        return _refuse(f"{error.filename} cannot be written: {error.strerror}")
    for sentence in (*given.notices, *rendering.notes(kinds, known), *notes):
        print(f"Note: {sentence}", file=sys.stderr)
    said = [measured.sentence, *(f"Wrote {Path(shown_out, path)}" for path in texts)]
    said += [f"\n{rendering.next_steps(kind, known, shown_out)}" for kind in kinds]
    # At once, because what reads it may end after the first line, such as head.
    sys.stdout.write("\n".join(said) + "\n")
    return EXIT_WRITTEN


def _measure(flags: dict[str, Any]) -> measuring.Measurement:
    if flags.get("no_measure"):
        return measuring.Measurement(None, "The script was not started, so its needs are guessed.")
    if not hasattr(os, "fork"):
        return measuring.Measurement(None, "This system has no fork() to measure with, so the needs are guessed.")
    return measuring.measure(flags)


def _is_absent_or_equal(path: Path, text: str) -> bool:
    return not path.exists() or (path.is_file() and path.read_bytes() == text.encode())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def _refuse(*faults: str) -> int:
    for fault in faults:
        print(f"azmlinfsrv generate: error: {fault}", file=sys.stderr)
    return EXIT_USAGE
