"""The pytest plugin: fixtures ``scoring_server`` and ``score_client`` for tests of scoring scripts (docs/testing.md).

Owns how they are configured (ini keys, the marker ``scoring_server``), that a failed test shows the server's log, and
that a script which cannot load fails one test module, not the whole session. pytest imports this file in every session
in whose environment the package is installed, so it imports nothing but pytest and two small modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from . import contrib_services

if TYPE_CHECKING:
    from .testing import ScoringServer, TestClient

# The keyword arguments of serve(), with the script under "entry_script". One object for equal values, because pytest
# keeps a session fixture for as long as its parameter is the same object.
Configuration = dict[str, Any]

_known = pytest.StashKey[dict[str, Configuration]]()
# The server that runs now: one, or none.
_running = pytest.StashKey[list["ScoringServer"]]()
_log_start = pytest.StashKey[int]()

_MARKER = "scoring_server"
_HELP = {
    "azmlinfsrv_entry_script": "scoring script that the fixture scoring_server serves",
    "azmlinfsrv_model_dir": "folder of its model (AZUREML_MODEL_DIR)",
}
_LISTS = {
    "azmlinfsrv_settings": "settings of the server, NAME=VALUE on each line, such as worker_class=thread",
    "azmlinfsrv_environment": "variables for the script, NAME=VALUE on each line",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, purpose in _HELP.items():
        parser.addini(name, purpose)
    for name, purpose in _LISTS.items():
        parser.addini(name, purpose, type="linelist")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(entry_script, **arguments): what the fixtures scoring_server and score_client serve; the arguments "
        "are those of azureml_inference_server_http.testing.serve()",
    )
    config.stash[_known] = {}
    config.stash[_running] = []
    # Unit tests of a script import it, so the old names must work there as they do in the server.
    contrib_services.install()


# ---- Fixtures


@pytest.fixture(scope="session")
def scoring_server(request: pytest.FixtureRequest) -> Iterator[ScoringServer]:
    """The server of the configured script, ready. It serves all tests with the same configuration."""
    from .testing import ServeError, serve

    arguments = {**_from_ini(request.config), **getattr(request, "param", {})}
    script = arguments.pop("entry_script", None)
    if script is None:
        raise pytest.UsageError(
            "The fixture scoring_server has no script: set azmlinfsrv_entry_script in the ini file, or mark the test "
            f'with @pytest.mark.{_MARKER}("score.py")'
        )
    running = request.config.stash[_running]
    try:
        with serve(script, **{"folder": request.config.rootpath, **arguments}) as server:
            running.append(server)
            yield server
        return
    except ServeError as error:
        # Without the frames of this file, which tell nothing. The notes have the log.
        failure = _NotReady("\n\n".join([str(error), *getattr(error, "__notes__", [])]), pytrace=False)
    finally:
        running.clear()
    raise failure


@pytest.fixture
def score_client(scoring_server: ScoringServer) -> TestClient:
    """A client of ``scoring_server``: ``score_client.score(json={"data": [1]})``."""
    return scoring_server.client


# ---- Configuration


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A marker is a parameter of the session's fixture, which cannot see the markers of tests by itself."""
    marker = metafunc.definition.get_closest_marker(_MARKER)
    if marker is None or _MARKER not in metafunc.fixturenames:
        return
    if len(marker.args) > 1:
        raise pytest.UsageError(f"The marker {_MARKER} takes one script, and keyword arguments")
    given = {**marker.kwargs, **({"entry_script": marker.args[0]} if marker.args else {})}
    configuration = metafunc.config.stash[_known].setdefault(repr(sorted(given.items())), given)
    name = str(configuration.get("entry_script", "marked"))
    metafunc.parametrize(_MARKER, [configuration], indirect=True, ids=[name], scope="session")


def _from_ini(config: pytest.Config) -> Configuration:
    given: Configuration = {}
    for argument in ("entry_script", "model_dir"):
        value = config.getini(f"azmlinfsrv_{argument}")
        if value:
            given[argument] = value
    given.update(_pairs(config, "azmlinfsrv_settings"))
    environment = _pairs(config, "azmlinfsrv_environment")
    return {**given, "environment": environment} if environment else given


def _pairs(config: pytest.Config, key: str) -> dict[str, str]:
    pairs = {}
    for line in config.getini(key):
        name, equals, value = line.partition("=")
        if not equals:
            raise pytest.UsageError(f"{key}: write NAME=VALUE, not {line!r}")
        pairs[name.strip()] = value.strip()
    return pairs


# ---- Failures


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note how long the log is before the test, whose failure shows the rest of it."""
    for server in item.config.stash[_running]:
        item.stash[_log_start] = server.log_size()


class _NotReady(pytest.fail.Exception):  # type: ignore[misc, name-defined]
    """The server cannot be started. pytest raises it again for every test that needs the same server."""

    # The test whose report has the whole message.
    shown_by = ""


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Attach to a failure what the server has logged during the test."""
    outcome: Any = yield
    if _MARKER not in getattr(item, "fixturenames", ()):
        return
    report: pytest.TestReport = outcome.get_result()
    failure = call.excinfo and call.excinfo.value
    if isinstance(failure, _NotReady):
        if failure.shown_by:
            report.longrepr = f"The server cannot be started: see the error of {failure.shown_by}."
        failure.shown_by = failure.shown_by or item.nodeid
    elif report.failed:
        for server in item.config.stash[_running]:
            report.sections.append(("Log of the scoring server", server.log(item.stash.get(_log_start, 0))))


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """A test module that imports ``server.entry`` with a script that cannot load is an error of this module.

    pytest lets a SystemExit during collection end the session. Others than that of ``create()`` still do.
    """
    outcome: Any = yield
    failure = outcome.excinfo and outcome.excinfo[1]
    if isinstance(failure, SystemExit):
        from .server.user_script import CannotServe

        if isinstance(failure, CannotServe):
            report = pytest.CollectReport(collector.nodeid, "failed", failure.explanation, [])
            outcome.force_result(report)
