"""Packages that a script imports, compared with those that an environment's file names.

Owns reading ``requirements.txt`` and conda files as far as names go, and finding import statements. Nothing is run. The
installed packages say which module is of which package. Runs in the command, and only with ``--requirements``.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

SERVER = "azureml-inference-server-http"
_NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)")
_FORGIVEN = {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"}
# Modules that the server itself provides to scripts.
_PROVIDED = {"azureml_inference_server_http", "azureml"}


class Import(NamedTuple):
    """An import statement: the outermost module that it names, and where."""

    module: str
    file: str
    line: int


class Unnamed(NamedTuple):
    """An import of a package that is not named. ``package``: None if it is not installed here. ``needed_by``: a named
    package that brings it along."""

    found: Import
    package: str | None
    needed_by: str | None


class RequirementsError(Exception):
    """A file that cannot be read; the text says which and why."""


# ---- What is named


def named_in(path: str) -> set[str]:
    """The packages that a requirements file, or a conda file (``.yml``, ``.yaml``), names. Raises RequirementsError."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequirementsError(f"{path} cannot be read: {error}") from error
    if path.lower().endswith((".yml", ".yaml")):
        return set(_names_in_conda(lines))
    return set(_names_in_requirements(lines, os.path.dirname(path)))


def _names_in_requirements(lines: Iterable[str], folder: str) -> Iterator[str]:
    for line in lines:
        words = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        option = re.match(r"(?:-r|--requirement|-c|--constraint)[ =]\s*(\S+)", words)
        if option:
            if not words.startswith(("-c", "--constraint")):
                yield from named_in(os.path.join(folder, option[1]))
        elif "#egg=" in line:
            yield normalised(line.partition("#egg=")[2].split("&")[0])
        elif not words.startswith("-"):
            match = _NAME.match(words)
            if match:
                yield normalised(match[1])


def _names_in_conda(lines: Iterable[str]) -> Iterator[str]:
    """The items of the list ``dependencies`` and of the list ``pip`` in it."""
    inside = False
    for line in lines:
        words = line.split(" #")[0].strip()
        if words and not line[0].isspace() and not words.startswith("-"):
            inside = words.startswith("dependencies:")
        elif inside and words.startswith("- ") and not words.endswith(":"):
            item = words[2:].strip().strip("'\"").rpartition("::")[2]
            match = _NAME.match(item)
            if match:
                yield normalised(match[1])


def normalised(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


# ---- What is imported


def imports_of(file: str) -> list[Import]:
    """The import statements of a file, without relative ones, and without those that may fail."""
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return []  # what cannot be read was not imported either
    return list(_imports(tree, file))


def _imports(node: ast.AST, file: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(name.name.partition(".")[0], file, child.lineno) for name in child.names)
        elif isinstance(child, ast.ImportFrom):
            if child.module and not child.level:
                yield Import(child.module.partition(".")[0], file, child.lineno)
        elif isinstance(child, ast.Try) and any(_forgives(handler.type) for handler in child.handlers):
            for part in (*child.handlers, *child.orelse, *child.finalbody):
                yield from _imports(part, file)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for part in child.orelse:
                yield from _imports(part, file)
        else:
            yield from _imports(child, file)


def _forgives(kind: ast.expr | None) -> bool:
    """Whether a handler of this exception catches a failing import."""
    if kind is None:
        return True
    return any(isinstance(node, ast.Name) and node.id in _FORGIVEN for node in ast.walk(kind))


# ---- Compared


def unnamed(sources: Iterable[str], named: set[str]) -> list[Unnamed]:
    """The imports of these files, once for each module, whose packages are not named."""
    sources = list(sources)
    own = {os.path.splitext(os.path.basename(file))[0] for file in sources} | {
        os.path.basename(os.path.dirname(file)) for file in sources
    }
    first: dict[str, Import] = {}
    for found in (each for file in sources for each in imports_of(file)):
        if found.module not in own | _PROVIDED and not _is_standard(found.module):
            first.setdefault(found.module, found)
    if not first:
        return []
    installed = _Installed()
    given = named | installed.needs(SERVER)
    result = []
    for module, found in first.items():
        packages = installed.packages_of(module)
        if not packages & given and normalised(module) not in given:
            package = min(packages, default=None)
            result.append(Unnamed(found, package, installed.who_needs(package, named) if package else None))
    return result


def _is_standard(module: str) -> bool:
    if sys.version_info >= (3, 10):
        return module in sys.stdlib_module_names
    import importlib.util

    if module in sys.builtin_module_names:
        return True
    spec = importlib.util.find_spec(module)
    folder = os.path.dirname(os.__file__)
    return bool(spec and spec.origin and spec.origin.startswith(folder) and "site-packages" not in spec.origin)


class _Installed:
    """The packages of this environment: which modules they have, and which packages they need."""

    def __init__(self) -> None:
        import importlib.metadata

        self._modules: dict[str, set[str]] = {}
        self._needs: dict[str, set[str]] = {}
        for distribution in importlib.metadata.distributions():
            name = distribution.metadata["Name"]
            if not name:
                continue  # the rest of a broken installation
            package = normalised(name)
            required = (_NAME.match(text) for text in distribution.requires or () if "extra ==" not in text)
            self._needs[package] = {normalised(match[1]) for match in required if match}
            listed = (distribution.read_text("top_level.txt") or "").split()
            for module in listed or _outermost(distribution.files or ()):
                self._modules.setdefault(module, set()).add(package)

    def packages_of(self, module: str) -> set[str]:
        return self._modules.get(module, set())

    def needs(self, package: str) -> set[str]:
        """The package and all that it needs, directly or not."""
        found, waiting = set(), [package]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self._needs.get(name, ())
        return found

    def who_needs(self, package: str, named: set[str]) -> str | None:
        return next((name for name in sorted(named) if package in self.needs(name)), None)


def _outermost(files: Iterable[object]) -> set[str]:
    names = {
        str(file).replace(os.sep, "/").split("/")[0] for file in files if str(file).endswith((".py", ".so", ".pyd"))
    }
    return {name.split(".")[0] for name in names if not name.endswith((".dist-info", ".data"))}
