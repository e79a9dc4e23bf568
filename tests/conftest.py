"""Fixtures for all tests, and the servers' output in the report of a test that failed.

Owns when servers are started and stopped: ``start`` for tests that do something to a server, ``shared`` for tests that
only send requests. ``harness.py`` owns how. Loaded by pytest before any test module.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

# For the tests of benchmarks/. At the end: the server that is installed is tested, not the one in this folder.
sys.path.append(str(Path(__file__).resolve().parent.parent))

pytest.register_assert_rewrite("harness")

from harness import Server, Start  # noqa: E402  assertions in it are to be rewritten, so it cannot be imported before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        for server in Server.running:
            report.sections.append((f"Output of the server in {server.folder}", server.output()))
    return report


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """``start("echo.py", "--worker_count", "2", NAME="value")``: a server of this test's own, ready unless
    ``ready=False``. Stopped, and checked for leftovers, at the end."""
    with ExitStack() as stack:
        folders = itertools.count()

        def start_one(script: str | None, *options: str, ready: bool = True, **more: Any) -> Server:
            folder = tmp_path / f"app{next(folders)}"
            folder.mkdir()
            server = Server(folder, script, *options, **more)
            stack.callback(server.stop)
            return server.wait_until_ready() if ready else server

        yield start_one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Like ``start``, but the same arguments give the same ready server throughout a test module."""
    servers: dict[object, Server] = {}
    with ExitStack() as stack:

        def get(script: str, *options: str, **more: Any) -> Server:
            key = (script, options, tuple(more.items()))
            if key not in servers:
                server = Server(tmp_path_factory.mktemp("app"), script, *options, **more)
                stack.callback(server.stop)
                servers[key] = server.wait_until_ready()
            return servers[key]

        yield get
