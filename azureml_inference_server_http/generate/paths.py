"""Where a file is, seen from the folder of the script's files, of which an image is made. Pure functions."""

from __future__ import annotations

from pathlib import Path


def inside(path: Path, folder: Path) -> str | None:
    """The path from the folder, or None if it is not in it. Links are followed; ``folder`` has none."""
    path = path.resolve()
    return path.relative_to(folder).as_posix() if folder in path.parents else None
