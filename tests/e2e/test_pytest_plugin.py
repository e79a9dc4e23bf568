"""The pytest plugin in sessions of its own: what a failing script, a failing test and a session without either cost.

Owns failures and limits; docs/testing.md, whose examples ``test_testing_page.py`` runs, shows what works.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import eventually, is_running

SCORE = "import json\ndef init(): pass\ndef run(data): return json.loads(data)\n"
BROKEN = "import nowhere_at_all\ndef init(): pass\ndef run(data): pass\n"
INI = "[pytest]\nazmlinfsrv_entry_script = score.py\naddopts = --strict-markers --strict-config\n"


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AZML", "AZUREML", "PYTEST"))}


@pytest.fixture
def session(tmp_path):
    """``session({"test_a.py": "…"}, "-k", "a")``: the exit code and the output of a pytest session with these files."""

    def run(files: dict[str, str], *options: str) -> tuple[int, str]:
        for name, text in {"score.py": SCORE, "broken.py": BROKEN, "pytest.ini": INI, **files}.items():
            (tmp_path / name).write_text(text, encoding="utf-8")
        done = subprocess.run(
            # Hypothesis takes 0.2 s to import, and these sessions do not use it.
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *options],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=55,
        )
        return done.returncode, done.stdout.decode()

    return run


def test_a_session_without_these_fixtures_imports_next_to_nothing(session):
    test = """
import sys
def test_modules():
    ours = {name for name in sys.modules if name.startswith("azureml")}
    assert ours == {
        "azureml_inference_server_http",
        "azureml_inference_server_http.contrib_services",
        "azureml_inference_server_http.pytest_plugin",
    }
    assert "flask" not in sys.modules
"""
    code, output = session({"test_a.py": test})
    assert code == 0, output


@pytest.mark.parametrize("worker_class", ["process", "thread"])
def test_a_script_that_cannot_load_fails_the_tests_that_need_it(session, worker_class):
    test = f"""
import pytest
broken = pytest.mark.scoring_server("broken.py", worker_class="{worker_class}")
@broken
def test_first(score_client): pass
@broken
def test_second(score_client): pass
def test_other(score_client): assert score_client.score(json=[1]).json() == [1]
"""
    code, output = session({"test_a.py": test})
    assert code == 1
    assert "1 passed, 2 errors" in output
    assert "broken.py cannot be served: the server ended with code 3." in output
    # The summary says it again where the variable CI is set.
    report, _, _ = output.partition("short test summary info")
    assert report.count('broken.py", line 1, in <module>') == 1
    assert "The server cannot be started: see the error of test_a.py::test_first[broken.py]." in output


def test_a_failing_test_shows_what_the_server_logged_during_it(session):
    test = """
def test_before(score_client): assert score_client.score(json="earlier").status == 200
def test_fails(score_client): assert score_client.score(data="no JSON").status == 200
"""
    code, output = session({"test_a.py": test, "score.py": SCORE.replace(": return", ": print(data); return")})
    assert (code, "1 failed, 1 passed" in output) == (1, True), output
    log = output[output.index("Log of the scoring server") :]
    assert re.search(r'score.py", line 3, in run\n', log)
    assert "azmlinfsrv.print - no JSON" in log
    assert "earlier" not in log


def test_an_exception_in_a_block_of_serve_carries_the_log(session):
    test = """
from azureml_inference_server_http.testing import serve
def test_fails():
    with serve("score.py") as server:
        assert server.client.score(data="no JSON").status == 200
"""
    code, output = session({"test_a.py": test})
    assert code == 1
    assert 'score.py", line 3, in run' in output


def test_the_application_of_a_broken_script_is_an_error_of_one_module(session):
    test = """
import os
os.environ["AZUREML_ENTRY_SCRIPT"] = "broken.py"
from azureml_inference_server_http.server.entry import app
"""
    files = {"test_a.py": test, "test_b.py": "def test_b(): pass"}
    code, output = session(files, "--continue-on-collection-errors")
    assert (code, "1 passed, 1 error" in output) == (1, True), output
    assert 'broken.py", line 1, in <module>' in output
    assert "ModuleNotFoundError: No module named 'nowhere_at_all'" in output
    # A SystemExit that the plugin does not raise has its usual effect.
    code, output = session({"test_a.py": "raise SystemExit(5)"}, "--continue-on-collection-errors")
    assert "1 passed" not in output


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"pytest.ini": "[pytest]\n"}, "set azmlinfsrv_entry_script in the ini file"),
        ({"pytest.ini": f"{INI}azmlinfsrv_settings =\n    worker_count\n"}, "write NAME=VALUE, not 'worker_count'"),
        ({"pytest.ini": f"{INI}azmlinfsrv_settings =\n    worker_cuont=2\n"}, "did you mean worker_count?"),
        ({"pytest.ini": f"{INI}azmlinfsrv_settings =\n    worker_count=none\n"}, "it must be auto, or a whole number"),
    ],
)
def test_a_wrong_configuration_is_named(session, files, message):
    code, output = session({"test_a.py": "def test_a(score_client): pass", **files})
    assert (code, message in output) == (1, True), output


def test_tests_with_equal_markers_share_a_server(session):
    test = """
import pytest
pids = set()
@pytest.mark.scoring_server("score.py", worker_count=1)
def test_a(scoring_server): pids.add(scoring_server.pid)
@pytest.mark.scoring_server("score.py", worker_count=1)
def test_b(scoring_server):
    pids.add(scoring_server.pid)
    assert len(pids) == 1
"""
    code, output = session({"test_a.py": test})
    assert code == 0, output


def test_a_killed_test_process_takes_its_server_with_it(tmp_path):
    (tmp_path / "score.py").write_text(SCORE)
    program = """
import time
from azureml_inference_server_http.testing import serve
with serve("score.py") as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        server = int(process.stdout.readline())
        workers = [int(pid) for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
        process.send_signal(signal.SIGKILL)
    assert len(workers) >= 2
    eventually(lambda: not any(map(is_running, (server, *workers))), "the server and its children have ended")
