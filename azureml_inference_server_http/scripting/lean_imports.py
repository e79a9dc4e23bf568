"""Submodules of the standard library that a script may use after importing only their package.

``import urllib`` alone does not import ``urllib.request``. Scripts that use it nevertheless work
with 1.5.1, because the server and its dependencies have imported those submodules. This server does
not import them, because that would make the start slower. Instead it gives each package a module
``__getattr__``, which imports a submodule when a script first uses it. Owns the list of the
submodules that 1.5.1 has imported when it loads a script (contract section 4), and the hook for
packages that are imported later. Installed in the process that loads the script. Third-party
packages are not covered, so scripts must import their submodules.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from types import ModuleType

# Submodules by package. Python imports some together with their package (json.decoder, os.path);
# they need no entry.
SUBMODULES = {
    "concurrent": frozenset({"futures"}),
    "email": frozenset(
        {
            *("base64mime", "charset", "contentmanager", "encoders", "errors", "feedparser", "header"),
            *("headerregistry", "iterators", "message", "parser", "policy", "quoprimime", "utils"),
        }
    ),
    "encodings": frozenset({"idna"}),
    "html": frozenset({"entities"}),
    "http": frozenset({"client", "cookiejar", "cookies", "server"}),
    "importlib": frozenset({"abc", "machinery", "metadata", "readers", "resources", "util"}),
    "importlib.resources": frozenset({"abc", "readers"}),
    "logging": frozenset({"config", "handlers"}),
    "urllib": frozenset({"error", "parse", "request", "response"}),
    "xml": frozenset({"etree"}),
    "xml.etree": frozenset({"ElementPath", "ElementTree", "cElementTree"}),
}


def install() -> None:
    """Add the ``__getattr__`` to the packages that are imported already, and to the others when
    they are imported."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    for name in SUBMODULES:
        package = sys.modules.get(name)
        if package is not None:
            _cover(package)


class _Finder(MetaPathFinder):
    """Adds the ``__getattr__`` to a package after Python has imported it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in SUBMODULES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        # Python makes a loader of these types for each module, so changing this one affects no
        # other module.
        if spec is None or not isinstance(spec.loader, (SourceFileLoader, SourcelessFileLoader)):
            return None
        loader = spec.loader

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # so that a reload of the module uses the class's method again
            loader.exec_module(module)
            _cover(module)

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _cover(package: ModuleType) -> None:
    """Give a package the module ``__getattr__``, unless it has one, or is not a package (a user's
    own email.py)."""
    submodules = SUBMODULES[package.__name__]

    def __getattr__(name: str) -> ModuleType:
        if name in submodules:
            fullname = f"{package.__name__}.{name}"
            try:
                return importlib.import_module(fullname)
            except ModuleNotFoundError as error:
                if error.name != fullname:
                    raise
                # This version of Python has no such submodule.
        raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")

    if hasattr(package, "__path__") and "__getattr__" not in vars(package):
        package.__getattr__ = __getattr__  # type: ignore[method-assign]
