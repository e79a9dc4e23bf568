"""The Unix socket that workers connect to, in a folder that only this user may enter.

Owned by the supervisor, so that it outlives any front; the front accepts on it. Workers find it by its path, which is
absolute: a script may change the current folder. Runs in the supervisor.
"""

from __future__ import annotations

import logging
import os
import socket

from .listeners import BACKLOG

_logger = logging.getLogger("azmlinfsrv")

# Unix socket paths may be this long (108 bytes on Linux, 104 on macOS, the closing zero included).
MAX_PATH = 103


class WorkerSocket:
    """The listening socket and its folder."""

    def __init__(self) -> None:
        self._folder = _new_folder()
        self.path = _path_in(self._folder)
        self.listener = self._listen()

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen(BACKLOG)
        return listener

    def renew(self) -> bool:
        """Make a new socket under the same path if somebody has deleted it, such as a job that cleans up temporary
        folders. True if so: a front that accepts on the old one sees no more workers. Raises OSError."""
        if os.path.exists(self.path):
            return False
        _logger.error("%s, where new workers connect, has been deleted. It is made again.", self.path)
        os.makedirs(self._folder, 0o700, exist_ok=True)
        listener = self._listen()
        self.listener.close()
        self.listener = listener
        return True

    def remove(self) -> None:
        """Delete it and its folder, with the counters (``src/claims.rs``) that no front has taken over."""
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    os.unlink(entry)
            os.rmdir(self._folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            _logger.warning("Cannot remove %s: %s", self._folder, error)


def _new_folder() -> str:
    for parent in (os.environ.get("TMPDIR") or "/tmp", "/tmp"):
        folder = os.path.join(os.path.abspath(parent), f"azmlinfsrv-{os.getpid()}-{os.urandom(6).hex()}")
        if len(os.fsencode(_path_in(folder))) > MAX_PATH:
            continue
        try:
            os.mkdir(folder, 0o700)
        except OSError:
            continue
        return folder
    raise SystemExit("azmlinfsrv: error: no folder for temporary files can be written. Set TMPDIR to one that can.")


def _path_in(folder: str) -> str:
    return os.path.join(folder, "workers")
