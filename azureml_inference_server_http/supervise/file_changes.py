"""Decides which changes of files count for --reload, and when.

Decisions only: ``watcher.py`` looks at the files and has the clock. Knows a file by its
fingerprint, a text that differs when the file has been written or replaced.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

# The fingerprint of a file that does not exist.
ABSENT = "-"
# Seconds without another change after which changes are reported. Editors write a file in several
# steps, and tools write several files.
QUIET = 0.1
# Seconds after the first change when changes are reported even if files still change.
LONGEST = 1.0
# Seconds between two looks at the files.
PAUSE = 0.05
# A look at many files, or at a slow network drive, takes time. The pause is this many times longer,
# so that the watcher never uses more than a twentieth of a processor.
PAUSE_FACTOR = 20


class Changes:
    """Compares what the watcher sees with what it has reported."""

    def __init__(self, known: Mapping[str, str]) -> None:
        # The fingerprint of each watched file, as the script was loaded with it, or as it was
        # reported.
        self._known = dict(known)
        self._last_seen = self._known
        # When the changes began that have not been reported yet.
        self._began: float | None = None
        # When the last one of them was seen.
        self._moved = 0.0

    @property
    def paths(self) -> list[str]:
        """The files that are watched, also if they do not exist."""
        return list(self._known)

    def add(self, path: str, fingerprint: str) -> None:
        """Watch another file, which the script was loaded with as ``fingerprint`` says. For a file
        that is watched already, the fingerprint is not taken: a change may wait to be reported."""
        self._known.setdefault(path, fingerprint)

    def look(self, seen: Mapping[str, str], now: float) -> list[str]:
        """Take the fingerprints of all files at ``now``. Returns the files to report as changed.

        Changes are reported when no more have followed for ``QUIET`` seconds. A file that is as it
        was before has not changed.
        """
        changed = sorted(path for path in self._known.keys() | seen.keys() if self._differs(path, seen))
        if not changed:
            self._began = None
            return []
        if self._began is None or seen != self._last_seen:
            self._moved = now
        self._began = now if self._began is None else self._began
        self._last_seen = dict(seen)
        if now - self._moved < QUIET and now - self._began < LONGEST:
            return []
        self._known.update({path: seen.get(path, ABSENT) for path in changed})
        self._began = None
        return changed

    def _differs(self, path: str, seen: Mapping[str, str]) -> bool:
        return self._known.get(path, ABSENT) != seen.get(path, ABSENT)


def pause_after(seconds: float) -> float:
    """Seconds until the next look, after a look that took ``seconds``."""
    return max(PAUSE, PAUSE_FACTOR * seconds)


def describe(paths: Sequence[str], folder: str) -> str:
    """Names changed files for the log, as the subject of a sentence. Paths below ``folder`` are
    relative to it."""
    first, *others = (
        os.path.relpath(path, folder) if path.startswith(os.path.join(folder, "")) else path for path in paths
    )
    if not others:
        return first
    return f"{first} and {len(others)} other file{'s' if len(others) > 1 else ''}"
