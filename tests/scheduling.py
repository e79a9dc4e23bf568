"""Which parallel test process of pytest-xdist runs which tests.

``conftest.py`` hands it to pytest-xdist. Runs in the process that starts the others.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling


class ByServers(LoadScopeScheduling):
    """The tests of a file and of one worker class run in the same process, because they share servers.

    pytest-xdist 3.8's own way to group tests (``--dist loadgroup``) depends on a name that pytest 9.2 does not read.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(test: str) -> str:
    """Tests with the same group run in the same process. The worker class is the first parameter of a test."""
    file, _, name = test.partition("::")
    first = name.partition("[")[2].rstrip("]").partition("-")[0]
    return f"{file}-{first}" if first in ("process", "thread") else file
