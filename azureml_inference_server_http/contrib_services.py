"""The old import paths ``azureml.contrib.services.aml_request`` and ``.aml_response``.

Owns two import hooks. The two modules are always this package's ``api`` modules, even if a real
``azureml`` package is installed. Their parent packages are made up only if no installed package
provides them. Nothing is imported before a script imports it, because the modules need Flask.
``install`` runs in the process that loads the script. Rules: contract section 4.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_LEAVES = {
    "azureml.contrib.services.aml_request": "azureml_inference_server_http.api.aml_request",
    "azureml.contrib.services.aml_response": "azureml_inference_server_http.api.aml_response",
}
_PARENTS = frozenset({"azureml", "azureml.contrib", "azureml.contrib.services"})


class _AliasLoader(Loader):
    """Puts the api module itself into ``sys.modules`` under the old name, so that both names give
    the same classes."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # After this call, ``import`` returns the module that it finds in sys.modules, even if it
        # did not create it.
        sys.modules[module.__name__] = importlib.import_module(_LEAVES[module.__name__])


class _LeafFinder(MetaPathFinder):
    """Finds the two modules. Placed first in ``sys.meta_path``, before an installed
    azureml-contrib-services."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, _AliasLoader()) if fullname in _LEAVES else None


class _ParentFinder(MetaPathFinder):
    """Makes empty parent packages. Placed last in ``sys.meta_path``, so that real packages are
    found before."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _PARENTS:
            return None
        # A spec without a loader but with a search path makes a namespace package.
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = []
        return spec


def install() -> None:
    """Make the old paths importable. Installing twice changes nothing."""
    if not any(isinstance(finder, _LeafFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LeafFinder())
        sys.meta_path.append(_ParentFinder())
