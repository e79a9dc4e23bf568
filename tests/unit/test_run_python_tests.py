"""tools/run_python_tests.py: which failed tests run again, and what the build makes of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.run_python_tests import MOST, is_worth_another_try, write_bytecode

TOOL = Path(__file__).parents[2] / "tools" / "run_python_tests.py"
TESTS = """
import os, pytest

def fail_once(name):
    if not os.path.exists(name):
        open(name, "w").close()
        raise AssertionError

@pytest.fixture
def teardown():
    yield
    fail_once("teardown")

def test_passes(): open("passed", "a").write("x")
def test_call(): fail_once("call")
def test_teardown(teardown): pass
@pytest.mark.parametrize("v", ["a::[b]/@"])
def test_odd_name(v): fail_once("odd name")
"""


@pytest.mark.parametrize(
    ("code", "count", "again"),
    [(1, 1, True), (1, MOST, True), (1, MOST + 1, False), (1, 0, False), (0, 0, False), (2, 1, False), (5, 0, False)],
)
def test_few_tests_that_fail_and_nothing_else_run_again(code, count, again):
    assert is_worth_another_try(code, [f"test_{number}" for number in range(count)]) == again


@pytest.mark.parametrize("has_fault", [False, True])
def test_a_test_that_passes_alone_is_named_and_one_that_fails_twice_fails_the_build(tmp_path, has_fault):
    fault = "def test_fault(): assert False" if has_fault else ""
    (tmp_path / "test_it.py").write_text(TESTS + fault)
    environment = {"PASSED_ALONE": str(tmp_path / "alone"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, str(TOOL), "-q"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == has_fault, output
    assert (tmp_path / "passed").read_text() == "x", "what passed does not run again"
    if has_fault:
        assert "PASSED ALONE" not in output
    else:
        names = [f"test_it.py::test_{name}" for name in ("call", "teardown", "odd_name[a::[b]/@]")]
        assert (tmp_path / "alone").read_text().splitlines() == names
        assert all(f"PASSED ALONE: {name}" in output for name in names)


def test_servers_find_bytecode_whatever_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "module.py").write_text("x = 1")
    write_bytecode(tmp_path)
    assert list(tmp_path.glob("inner/__pycache__/module.*.pyc"))
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
    assert not sys.dont_write_bytecode
