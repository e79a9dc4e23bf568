"""Which tests ``make test-windows`` leaves out (``tests/windows_tests.py``)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import windows_command
import windows_tests

from tools import windows_python

E2E = Path(__file__).resolve().parents[1] / "e2e"


@pytest.mark.parametrize("beginning", windows_tests.LEFT_OUT)
def test_what_is_left_out_exists(beginning):
    file, _, name = beginning.partition("::")
    assert f"def {name.partition('[')[0] or 'test_'}" in (E2E / file).read_text(encoding="utf-8")


def test_paths_have_the_names_of_windows():
    assert windows_python.windows_path("/tmp/azt-1/a b") == "Z:\\tmp\\azt-1\\a b"


LOOKS = """
import subprocess, windows_command
before = windows_command.others()
child = subprocess.Popen(["sleep", "60"])
print(before, windows_command.others(), end=" ")
child.kill()
child.wait()
print(windows_command.others())
"""


@pytest.mark.parametrize(("own_session", "seen"), [(True, "False True False"), (False, "False False False")])
def test_processes_that_are_left_are_seen_in_a_session_of_its_own(own_session, seen):
    command = [sys.executable, "-c", LOOKS]
    done = subprocess.run(command, cwd=E2E.parent, capture_output=True, text=True, start_new_session=own_session)
    assert done.stdout.strip() == seen, done.stderr


def test_a_pipe_that_others_keep_open_does_not_delay_the_end(tmp_path):
    reader, writer = os.pipe()
    ended = threading.Event()
    ended.set()
    os.write(writer, b"the last line\n")
    with (tmp_path / "log").open("wb", buffering=0) as log:
        # Returns, although the other end of the pipe is open.
        windows_command.copy(reader, log.fileno(), ended)
    os.close(writer)
    os.close(reader)
    assert (tmp_path / "log").read_bytes() == b"the last line\n"
