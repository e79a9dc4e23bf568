"""The file with the packages of the script: where it is, what it includes, and what of it cannot work in an image.

Reads requirements files of pip and conda files, of which only the lists are looked at. Runs in the command.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .options import UsageError
from .paths import inside

# The files that are looked for, in this order.
_NAMES = (
    "requirements.txt",
    "conda.yml",
    "conda.yaml",
    "conda_dependencies.yml",
    "environment.yml",
    "environment.yaml",
)
_CONDA = (".yml", ".yaml")
_INCLUDE = re.compile(r"(?:(?:-r|-c)\s*|(?:--requirement|--constraint)[ =]\s*)(\S+)")
# An entry with a path in place of a name: `-e ./a`, `./a`, `a @ file:///b`, `dist/a.whl`, `--find-links ./a`.
_LOCAL = re.compile(
    r"(?:-e|--editable|-f|--find-links)(?:\s+|=)(?!\S*://)\S+"
    r"|(?:\S+\s*@\s*)?file:\S+"
    r"|(?:\.{0,2}/|\.$)\S*"
    r"|(?!\S*://)\S+\.(?:whl|tar\.gz|zip)"
)
_OWN = re.compile(r"azureml[-_.]inference[-_.]server[-_.]http\s*(?:\[[^]]*\])?\s*([^;]*)", re.IGNORECASE)
_CLAUSE = re.compile(r"(===|==|~=|!=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)(\.\*)?")


class Requirements(NamedTuple):
    """The file, and those that it includes, from the folder of the script's files. ``notes``: sentences about what of
    them cannot work in an image."""

    path: str
    included: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_conda(self) -> bool:
        return self.path.endswith(_CONDA)


def find(named: str | None, app: Path, server: str) -> Requirements | None:
    """The file that was named, or the one in the folder ``app``. ``server``: the version of this package. Raises
    UsageError."""
    path = named or next((name for name in _NAMES if (app / name).is_file()), None)
    if path is None:
        return None
    files: dict[str, list[str]] = {}
    _read(app, path, files)
    notes = [note for file, entries in files.items() for entry in entries for note in _notes(file, entry, server)]
    return Requirements(path, tuple(sorted(files.keys() - {path})), tuple(notes))


def _read(app: Path, name: str, files: dict[str, list[str]]) -> None:
    """Put the entries of the file, and of those that it includes, into ``files``."""
    file = app / name
    files[name] = list(_entries(file))
    for entry in files[name]:
        include = _INCLUDE.fullmatch(entry)
        if include is None or "://" in include[1]:
            continue  # pip fetches a URL
        included = file.parent / include[1].strip("\"'")
        found = inside(included, app)
        if not included.is_file() or found is None:
            raise UsageError(f"{file} includes {include[1]}, which is no file in {app}")
        if found not in files:
            _read(app, found, files)


def _entries(file: Path) -> Iterator[str]:
    """The lines of a requirements file, or the entries of the lists in a conda file, without comments."""
    is_conda = file.suffix in _CONDA
    # With a mark of byte order, as editors of Windows write it.
    for line in file.read_text(encoding="utf-8-sig", errors="replace").splitlines():
        entry = re.sub(r"(?:^|\s)#.*", "", line).strip()
        if is_conda:
            entry = entry[1:].strip().strip("\"'") if entry.startswith("-") else ""
        if entry:
            yield entry


def _notes(file: str, entry: str, server: str) -> Iterator[str]:
    if _LOCAL.match(entry):
        yield (
            f"{file} has `{entry}`, a path that is not in the image when the packages are installed: copy it to /build "
            "in the Dockerfile, or install the package from an index."
        )
    own = _OWN.match(entry)
    # A conda file is installed before this package, which replaces another version.
    if own and not file.endswith(_CONDA) and not _allows(own[1], server):
        yield f"{file} has `{entry}`, but the image gets {server}, and pip refuses both together: take the line out."


def _allows(specifier: str, version: str) -> bool:
    """Whether a version is one of those that a specifier such as ``>=1.3,<3`` asks for."""
    return all(_is_in(_numbers(version), *clause) for clause in _CLAUSE.findall(specifier))


def _is_in(version: tuple[int, ...], operator: str, text: str, wildcard: str) -> bool:
    other = _numbers(text)
    length = max(len(version), len(other))
    left, right = (numbers + (0,) * (length - len(numbers)) for numbers in (version, other))
    begins = left[: len(other)] == other
    return {
        "==": begins if wildcard else left == right,
        "===": left == right,
        "!=": not begins if wildcard else left != right,
        "~=": left >= right and left[: len(other) - 1] == other[:-1],
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[operator]


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, release[0].split("."))) if release else ()
