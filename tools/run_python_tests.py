"""Runs pytest, and once more, alone, the few tests that failed: a busy machine must not fail the build.

``python tools/run_python_tests.py -n 2 -m "not serial"``: all options are pytest's. A test that fails twice fails the
build, and so do more than ``MOST`` failed tests, which no load explains. Each test that passed only alone is a line in
the file that PASSED_ALONE names, from which ``make`` prints its closing table. Exits with pytest's exit code.

Before that it compiles the package, because the tests start the server more than a thousand times.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "azureml_inference_server_http"
# More tests than this failing at once have one cause, which is not the load.
MOST = 5


class Failures:
    """A plugin of pytest that remembers which tests failed, their fixtures included."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.nodeid not in self.names:
            self.names.append(report.nodeid)


def is_worth_another_try(code: int, failed: list[str]) -> bool:
    """Whether pytest's exit code says that tests failed, and nothing else went wrong, and they are few."""
    return code == pytest.ExitCode.TESTS_FAILED and 0 < len(failed) <= MOST


def write_bytecode(package: Path = PACKAGE) -> None:
    """Compile the package, and let pytest keep what it compiles, even if the environment says PYTHONDONTWRITEBYTECODE.

    A server that finds no bytecode compiles about 60 files, which takes 0.1 of the 0.25 seconds of processor time
    between its start and its end. pytest spends half of its collection on rewriting the assertions of test files.
    """
    compileall.compile_dir(package, quiet=1)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def main(options: list[str]) -> int:
    write_bytecode()
    failures = Failures()
    code = int(pytest.main(options, plugins=[failures]))
    if not is_worth_another_try(code, failures.names):
        return code
    print(f"\nThese tests failed, and run once more, alone: {', '.join(failures.names)}\n", flush=True)
    # In a process of its own, because this one has loaded the modules of the tests.
    again = subprocess.run([sys.executable, "-m", "pytest", *failures.names], check=False).returncode
    if again == 0:
        note(failures.names)
    return again


def note(names: list[str]) -> None:
    """Write down which tests passed only alone."""
    for name in names:
        print(f"FAILED AT FIRST, PASSED ALONE: {name}", flush=True)
    if file := os.environ.get("PASSED_ALONE"):
        with Path(file).open("a", encoding="utf-8") as notes:
            notes.writelines(f"{name}\n" for name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
