"""The old import paths ``azureml.contrib.services.aml_request`` and ``.aml_response``.

Owns two import hooks. The leaf modules are always this package's ``api`` modules, also when a real ``azureml``
package is installed; the packages above them are invented only when nothing else provides them. Nothing is imported,
Flask least of all, before a script asks. ``install`` runs in the process that loads the script. Rules: contract
section 4.
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
    """Puts the api module itself under the old name, so that both names give the same classes."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        # The import system hands out what sys.modules holds after this call, which need not be the module it made.
        sys.modules[module.__name__] = importlib.import_module(_LEAVES[module.__name__])


class _LeafFinder(MetaPathFinder):
    """Asked first, so that an installed azureml-contrib-services does not win."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, _AliasLoader()) if fullname in _LEAVES else None


class _ParentFinder(MetaPathFinder):
    """Asked last: an empty package where no real one was found."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _PARENTS:
            return None
        # No loader and a search path makes a namespace package.
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = []
        return spec


def install() -> None:
    """Make the old paths importable. Installing twice changes nothing."""
    if not any(isinstance(finder, _LeafFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LeafFinder())
        sys.meta_path.append(_ParentFinder())
