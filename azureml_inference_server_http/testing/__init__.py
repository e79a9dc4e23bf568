"""Public: tests of scoring scripts against the real server. docs/testing.md explains it with examples.

``serve()`` starts the command on a free port and stops it; ``TestClient`` sends requests to it; ``pytest_plugin`` makes
fixtures from the two. Importing this package needs the standard library alone, and no pytest. Never runs in a server.
"""

from __future__ import annotations

from .client import Reply, TestClient
from .server import ScoringServer, ServeError, serve

__all__ = ["Reply", "ScoringServer", "ServeError", "TestClient", "serve"]
