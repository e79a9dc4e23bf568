"""Which tests ``make test-windows`` leaves out (``tests/windows_tests.py``)."""

from __future__ import annotations

import os
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
