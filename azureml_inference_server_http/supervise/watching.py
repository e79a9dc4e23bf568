"""The supervisor's side of --reload: the socket to the watcher process, and the pipe from the
processes that load the script.

Makes the events ``FilesChanged`` and ``LoadFailed``. Each process that loads the script writes what
it imports to the pipe (``scripting/load_reports.py``), and the watcher is told about it. The
supervisor reads the pipe, and not the watcher, because it must know why a worker could not load the
script before it sees the worker's end. Used in the supervisor process.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .. import log_config
from ..scripting.load_reports import LoadReports
from . import control, events, watcher

if TYPE_CHECKING:
    from ..launch.settings import Settings

_logger = logging.getLogger("azmlinfsrv")


class Watching:
    """The watcher process, and the pipe from those that load the script."""

    def __init__(self, settings: Settings) -> None:
        """Look at all files, before anything is loaded. Raises OSError."""
        # Every worker needs these modules. They run no code of the user, and take a tenth of a second
        # that nobody should wait for after each change.
        from ..scripting import debug, loading, swagger  # noqa: F401

        self._settings = settings
        self._watched = _watched(settings)
        self._known = watcher.look_first(self._watched)
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._reports = control.Lines()
        self._line: socket.socket | None = None
        self._lines = control.Lines()
        self._pid: int | None = None

    @property
    def descriptors(self) -> list[int]:
        """What the supervisor must poll."""
        return [self._reader, *([] if self._line is None else [self._line.fileno()])]

    # ---- In children

    def close_in_child(self) -> None:
        """Close what belongs to the supervisor."""
        os.close(self._reader)
        if self._line is not None:
            self._line.close()

    def reports(self) -> LoadReports:
        """Where a process reports what the script loads."""
        return LoadReports(self._settings, self._writer)

    def run_watcher(self, line: socket.socket, supervisor: int) -> int:
        """The main function of the watcher process. Returns the exit code."""
        os.close(self._writer)
        return watcher.run(self._watched, self._known, line, supervisor)

    # ---- In the supervisor

    def begin(self, pid: int, line: socket.socket) -> None:
        """Use this watcher process, which has been forked."""
        line.setblocking(False)
        self._pid, self._line = pid, line
        _logger.info("Watching the files of the script (--reload): a change starts new workers.")

    def left(self, pid: int) -> None:
        """Note that a process has ended, which may be the watcher."""
        if pid == self._pid:
            self._pid = None
            _logger.error("The watcher process (pid:%d) has ended: changes of files are not noticed any more.", pid)

    def end(self) -> None:
        """End the watcher, because the server has ended. It is killed, because a look at a network
        drive may take long."""
        if self._pid is not None:
            # Python's handler would write to the wake-up socket, which is being closed.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.kill(self._pid, signal.SIGKILL)

    def read(self) -> Iterator[events.Event]:
        """The events that the watcher, and the processes that load the script, have reported."""
        for text in self._reports.add(self._read_pipe()):
            verb, _, rest = text.partition(" ")
            if verb == "imported":
                self._tell_watcher(text)
            else:
                pid, _, error = rest.partition(" ")
                where, _, message = error.partition("\t")
                yield events.LoadFailed(int(pid), where, message)
        for text in self._lines.add(self._read_line()):
            verb, _, what = text.partition(" ")
            if verb == "changed":
                yield events.FilesChanged(what)
            else:
                _logger.warning("%s changed. Its settings are read once: restart the server to apply them.", what)

    def _read_pipe(self) -> bytes:
        try:
            return os.read(self._reader, 65536)
        except BlockingIOError:
            return b""

    def _read_line(self) -> bytes:
        if self._line is None:
            return b""
        try:
            received = self._line.recv(65536)
        except BlockingIOError:
            return b""
        except OSError:
            received = b""
        if not received:
            # The watcher is ending. SIGCHLD follows.
            self._line.close()
            self._line = None
        return received

    def _tell_watcher(self, text: str) -> None:
        if self._line is None:
            return
        try:
            self._line.sendall(f"{text}\n".encode())
        except OSError as error:
            # It does not read, because it waits for a drive, or it is ending.
            _logger.warning("--reload does not watch %s: the watcher is busy (%s).", text.split(" ", 2)[-1], error)


def _watched(settings: Settings) -> watcher.Watched:
    files = [os.path.abspath(path) for path in log_config.user_config_paths(settings)]
    home = os.path.abspath(settings.app_root)
    if settings.entry_script:
        script = os.path.abspath(os.path.join(settings.app_root, settings.entry_script))
        files.append(script)
        home = os.path.dirname(script)
    named = (settings.reload_dir or "").split(os.pathsep)
    folders = [os.path.abspath(folder) for folder in named if folder.strip()]
    for folder in folders:
        if not os.path.isdir(folder):
            _logger.warning("The folder %s does not exist (%s).", folder, settings.origins["reload_dir"].name)
    config_file = settings.config_file_read and os.path.abspath(settings.config_file_read)
    return watcher.Watched(files, folders, config_file, home)
