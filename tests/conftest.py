"""Fixtures for all tests, what parallel test processes share out, and the notes about tests that
did not run.

Owns when servers are started and stopped: ``start`` for tests that do something to a server,
``shared`` for tests that only send requests. ``harness.py`` owns how. Loaded by pytest before any
test module.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Callable

import pytest

# Lets tests import benchmarks/. The folder is last, so that the installed server is tested and not
# this folder.
sys.path.append(str(Path(__file__).resolve().parent.parent))

# Their assertions are rewritten only if they are imported after this.
pytest.register_assert_rewrite("harness", "wire")

from harness import Server, Start  # noqa: E402
from surroundings import Terminal  # noqa: E402

# A shell ignores Ctrl-C in background commands, and nohup ignores SIGHUP. The servers would inherit that, and tests
# expect that these signals end them.
for name in ("SIGHUP", "SIGINT", "SIGQUIT"):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

if "windows_command.py" in os.environ.get("TEST_SERVER", ""):
    pytest_plugins = ["windows_tests"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed:
        for server in Server.running:
            report.sections.append((f"Output of the server in {server.folder}", server.output()))
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from scheduling import ByServers  # imported here, because not every environment has pytest-xdist

    return ByServers(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Note how many tests were skipped and why in the file NOT_RUN, from which ``make`` prints its
    closing table.

    Not in a parallel test process of pytest-xdist, as its parent gets all reports.
    """
    name = os.environ.get("NOT_RUN")
    if name and not hasattr(config, "workerinput"):
        skipped = terminalreporter.getreports("skipped")
        reasons = Counter(report.longrepr[2].replace("Skipped: ", "", 1) for report in skipped)
        with Path(name).open("a", encoding="utf-8") as notes:
            notes.writelines(f"Python tests ({count})\t{reason}\n" for reason, count in sorted(reasons.items()))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests marked ``any_worker_class`` once for each worker class."""
    if metafunc.definition.get_closest_marker("any_worker_class"):
        metafunc.parametrize("worker_class", ["process", "thread"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def worker_class(request: pytest.FixtureRequest) -> str:
    """The worker class of the servers of this test."""
    return getattr(request, "param", "process")


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    """``script(text)`` writes a scoring script to a file, and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "score.py"
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def start(tmp_path: Path, worker_class: str) -> Iterator[Start]:
    """``start("echo.py", "--worker_count", "2", NAME="value")``: a server of this test's own, ready
    unless ``ready=False``. Stopped, and checked for leftovers, at the end."""
    with ExitStack() as stack:
        folders = itertools.count()

        def start_one(script: str | None, *options: str, ready: bool = True, **more: Any) -> Server:
            folder = tmp_path / f"app{next(folders)}"
            folder.mkdir()
            server = Server(folder, script, *options, **{"AZMLINFSRV_WORKER_CLASS": worker_class, **more})
            stack.callback(server.stop)
            return server.wait_until_ready() if ready else server

        yield start_one


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_class: str) -> Iterator[Start]:
    """Like ``start``, but the same arguments give the same ready server throughout a test
    module."""
    servers: dict[object, Server] = {}
    with ExitStack() as stack:

        def get(script: str, *options: str, **more: Any) -> Server:
            key = (script, options, tuple(more.items()))
            if key not in servers:
                environment = {"AZMLINFSRV_WORKER_CLASS": worker_class, **more}
                server = Server(tmp_path_factory.mktemp("app"), script, *options, **environment)
                stack.callback(server.stop)
                servers[key] = server.wait_until_ready()
            return servers[key]

        yield get


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal. It is closed when the test ends."""
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe."""
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        # OSError: the test has closed it.
        with suppress(OSError):
            os.close(descriptor)
