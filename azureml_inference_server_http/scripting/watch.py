"""Who is told how far the start of a script has come: nobody in a server, the probe in ``azmlinfsrv validate``.

Owns the names of the steps. ``worker.py`` takes them. Runs in the process that loads the script.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .script import Script

IMPORT, INIT, SWAGGER = "import", "init", "swagger"


class Watch:
    """Is told, and does nothing. The methods are called in the order in which they stand here."""

    def begins(self, step: str) -> None:
        """This step begins."""

    def loaded(self, script: Script) -> None:
        """The script has been imported, and its functions can be called."""

    def failed(self, error: Exception) -> None:
        """The script cannot be served: the last call of all."""

    def is_ready(self, script: Script, documents: Mapping[str, str]) -> None:
        """The script can be served; with the swagger documents by version."""


NOBODY = Watch()
