"""The user's own files: which they are, which of them are loaded, and where in them an exception was raised.

A file is the user's own if it is in a folder of the script and belongs neither to Python, nor to an installed
package, nor to the server. Runs in workers, and in the supervisor for ``--reload``.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..launch.settings import Settings

# Limit for x-ms-run-error-location, in characters.
MAX_LOCATION = 256
PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

LIBRARY_FOLDER = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")
_IMPORTS_FLASK = re.compile(rb"\b(?:import|from)\b[^\n;#]*\bflask\b")


def script_path(settings: Settings) -> str:
    """The path of the entry script that the settings name."""
    return os.path.abspath(os.path.join(settings.app_root, settings.entry_script or ""))


def folders_of(settings: Settings, file: str | None = None) -> tuple[str, ...]:
    """Folders with the user's own files. The longest is first, so that a file's name is relative to
    the nearest one. ``file`` is the script; without it, the settings say where the script is."""
    folders = {settings.app_root}
    if file or settings.entry_script:
        folders.add(os.path.dirname(file or script_path(settings)))
    if settings.source_directory:
        folders.add(os.path.join(settings.app_root, settings.source_directory))
    both = {os.path.abspath(folder) for folder in folders} | {os.path.realpath(folder) for folder in folders}
    return tuple(sorted((os.path.join(folder, "") for folder in both), key=len, reverse=True))


def file_of(module: object) -> object:
    """``module.__file__``, read without the module's ``__getattr__``, because that would load a
    lazy module."""
    with contextlib.suppress(AttributeError):
        return object.__getattribute__(module, "__dict__").get("__file__")
    return None


def loaded_modules(folders: tuple[str, ...]) -> list[tuple[str, str]]:
    """Name and file of each loaded module that is one of the user's own files."""
    modules = [(name, file_of(module)) for name, module in list(sys.modules.items())]
    return [(name, file) for name, file in modules if isinstance(file, str) and name_of(file, folders) is not None]


def name_of(file: str, folders: tuple[str, ...]) -> str | None:
    """``file`` relative to the user's folders, or None if it belongs to Python, an installed
    package or the server."""
    if _is_below(file, PACKAGE_FOLDER) or _is_below(file, LIBRARY_FOLDER) or _INSTALLED.search(file):
        return None
    for folder in folders:
        if _is_below(file, folder):
            return os.path.relpath(file, folder).replace(os.sep, "/")
    return None


def _is_below(file: str, folder: str) -> bool:
    """Whether the file is in the folder, whose name ends with a separator. Case does not count on Windows."""
    return os.path.normcase(file).startswith(os.path.normcase(folder))


def location(exc: BaseException, folders: tuple[str, ...]) -> str:
    """Where in the user's own files an exception was raised, for example ``score.py:12
    ZeroDivisionError``; the name of the exception alone if that is not in the user's own files."""
    place = place_of(exc, folders)
    text = type(exc).__name__
    if place is not None:
        text = f"{name_of(place[0], folders)}:{place[1]} {text}"
    # The value must be one line of printable ASCII, because it is sent as a header, and short
    # enough for proxies.
    return "".join(char if " " <= char <= "~" else "?" for char in text[:MAX_LOCATION])


def place_of(exc: BaseException, folders: tuple[str, ...]) -> tuple[str, int] | None:
    """The deepest of the user's own lines in the traceback of an exception: file and line. None if there is none."""
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(exc.__traceback__)]
    if isinstance(exc, SyntaxError) and exc.filename and exc.lineno:
        # The file that could not be compiled has no frame.
        places.append((exc.filename, exc.lineno))
    return next((place for place in reversed(places) if name_of(place[0], folders) is not None), None)


def imports_flask(file: str) -> bool:
    """True if this file has a line that imports Flask."""
    with contextlib.suppress(OSError), open(file, "rb") as source:
        return _IMPORTS_FLASK.search(source.read()) is not None
    return False
