"""Public: ``app``, the server as a Flask application, for ``app.test_client()`` in people's own
tests.

Importing this module loads the script of AZUREML_ENTRY_SCRIPT and calls init(), as with 1.5.1.
Python imports a module once, so the script is loaded once. Tests that need another script or other
settings call ``create_app.create()``. Never runs in a server.
"""

from __future__ import annotations

from .create_app import create

__all__ = ["app"]

app = create()
