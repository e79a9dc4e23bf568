"""The folders that the server adds to ``sys.path``, for scripts and for the classes that a
logging.json names.

Owns the rules of contract section 4 about ``sys.path``. The launcher applies them before it reads
logging.json, and the processes that it forks inherit the result. The application for tests of
scripts (``server.create_app``) applies them when it loads a script.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..launch.settings import Settings

# Contains only entry_module.py, through which processes that a script starts with multiprocessing
# find the script.
SPAWNED = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "spawned")


def extend(settings: Settings, current_folder: str | None = None) -> None:
    """Add the app root and the source directory at the end of ``sys.path``, and ``current_folder``
    at its front.

    Folders that are in it already are left where they are. The command passes the current folder,
    because with 1.5.1 gunicorn put it first. The script's own folder is not added.
    """
    _append(SPAWNED)
    _append(settings.app_root)
    if current_folder is not None and current_folder not in sys.path:
        sys.path.insert(0, current_folder)
    if settings.source_directory:
        _append(os.path.join(settings.app_root, settings.source_directory))


def _append(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)
