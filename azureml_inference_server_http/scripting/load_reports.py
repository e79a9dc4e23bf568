"""Reports to the supervisor which files a script imports, and why it could not be loaded
(--reload).

Runs in each process that loads the script: a worker, or the template. Writes lines to a pipe:
``imported FINGERPRINT PATH`` when a file is found, before it is run, and ``failed PID WHERE`` with
a tab and a message. ``supervise/watching.py`` reads them.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING

from ..supervise.watcher import fingerprint
from . import own_files
from .watch import IMPORT, Watch

if TYPE_CHECKING:
    from ..launch.settings import Settings

# Limit for a message, in characters.
_MAX_MESSAGE = 1000


class LoadReports(Watch):
    """The pipe to the supervisor."""

    def __init__(self, settings: Settings, writer: int) -> None:
        self._folders = own_files.folders_of(settings)
        self._writer = writer
        self._pipe = _identity(writer)
        self._reported: set[str] = set()

    def begins(self, step: str) -> None:
        """Report imports from the first step on."""
        if step != IMPORT:
            return
        # Python takes byte code for current if second and size of the source are the same. So byte
        # code from before a quick change would be run.
        sys.dont_write_bytecode = True
        sys.meta_path.insert(0, _Finder(self))

    def imported(self, path: str) -> None:
        """Report that a file is imported now, or would be if it existed."""
        if path in self._reported or own_files.name_of(path, self._folders) is None:
            return
        self._reported.add(path)
        self._write(f"imported {fingerprint(path)} {path}")

    def failed(self, error: Exception) -> None:
        """Report why the script could not be loaded."""
        cause = error.__cause__ or error
        where = own_files.location(cause, self._folders)
        message = " ".join(_message(cause).split())[:_MAX_MESSAGE]
        self._write(f"failed {os.getpid()} {where}\t{message}")

    def _write(self, text: str) -> None:
        """Write a line, unless it is not one: names of files may have bytes that are no text, and
        newlines."""
        line = f"{text}\n".encode("utf-8", "replace")
        # A pipe takes a line of at most this length as a whole.
        if line.count(b"\n") == 1 and len(line) <= select.PIPE_BUF and self._is_open():
            os.write(self._writer, line)

    def _is_open(self) -> bool:
        """False if the script has closed the pipe: then the descriptor may belong to a file of the
        script."""
        try:
            return _identity(self._writer) == self._pipe
        except OSError:
            return False


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the exception's class is the user's, and so may be its __str__
        return type(error).__name__


class _Finder(MetaPathFinder):
    """Finds nothing itself, but reports the file that Python finds for a module.

    Files are reported before they are run, so that a module whose import fails is watched too. If
    there is no such module, the files are reported that would be it: the user may write one of
    them.
    """

    def __init__(self, reports: LoadReports) -> None:
        self._reports = reports

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname in sys.builtin_module_names:
            return
        found: ModuleSpec | None = PathFinder.find_spec(fullname, path, target)
        if found is not None:
            if found.origin is not None:
                self._reports.imported(os.path.abspath(found.origin))
            return
        name = fullname.rpartition(".")[2]
        for folder in sys.path if path is None else path:
            if not isinstance(folder, str):
                continue
            for file in (f"{name}.py", os.path.join(name, "__init__.py")):
                self._reports.imported(os.path.abspath(os.path.join(folder, file)))
