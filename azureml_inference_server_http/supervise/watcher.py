"""The watcher process of --reload: looks at files again and again, and reports those that have
changed.

It is a process of its own, because a look at a network drive may block, and the supervisor must
obey signals. It compares fingerprints and gets no events of the kernel, because those do not exist
for network drives and for folders that are shared with a container, and because editors replace
files in many ways. ``file_changes.py`` decides what counts. ``Watching`` in ``watching.py`` is the
supervisor's side.

It receives the line ``imported FINGERPRINT PATH`` for each file that a worker has imported, and
sends ``changed TEXT`` when files have changed, and ``settings PATH`` when the configuration file
has. It ends when the supervisor closes the socket.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .. import _core
from . import control
from .file_changes import ABSENT, Changes, describe, pause_after


class Watched(NamedTuple):
    """What is watched from the start."""

    # Files whose change starts a reload.
    files: Sequence[str]
    # Folders: the same for all files below that .gitignore does not exclude.
    folders: Sequence[str]
    # The configuration file that was read at the start. A reload does not read it again.
    config_file: str | None
    # The folder that the log's paths are relative to.
    home: str


def fingerprint(path: str) -> str:
    """A text that differs when the file has been written or replaced. It has no space."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ABSENT
    return f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}"


def look(paths: Iterable[str], folders: Iterable[str]) -> dict[str, str]:
    """The fingerprints of these files, and of all files below these folders that count."""
    listed = [path for folder in folders for path in _core.project_files(folder)]
    return {path: fingerprint(path) for path in (*paths, *listed)}


def look_first(watched: Watched) -> dict[str, str]:
    """The fingerprints from before the script is loaded."""
    own = (watched.config_file,) if watched.config_file else ()
    return look((*watched.files, *own), watched.folders)


def run(watched: Watched, known: dict[str, str], line: socket.socket, supervisor: int) -> int:
    """The main function of the watcher process. ``known`` is from ``look_first``. Returns the exit
    code."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if not _core.die_with_parent(supervisor):
        return 0
    changes = Changes(known)
    lines = control.Lines()
    poll = select.poll()
    poll.register(line, select.POLLIN)
    look_at = time.monotonic()
    while True:
        if poll.poll(max(0.0, look_at - time.monotonic()) * 1000):
            received = line.recv(65536)
            if not received:
                return 0
            for text in lines.add(received):
                _, seen, path = text.split(" ", 2)
                changes.add(path, seen)
        began = time.monotonic()
        if began < look_at:
            continue
        changed = changes.look(look(changes.paths, watched.folders), began)
        look_at = time.monotonic() + pause_after(time.monotonic() - began)
        if watched.config_file in changed:
            changed.remove(watched.config_file)
            line.sendall(f"settings {watched.config_file}\n".encode())
        if changed:
            text = describe(changed, watched.home).replace("\n", "?")
            line.sendall(f"changed {text}\n".encode("utf-8", "replace"))
