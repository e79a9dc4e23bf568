"""docs/testing.md: its files, written into one folder as they stand, are a test suite that
passes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
FILES = re.findall(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
TESTS = [name for name, _ in FILES if name.startswith("test_")]


def test_every_block_of_code_is_run():
    assert len(FILES) == PAGE.read_text("utf-8").count("\n```") // 2 == len(TESTS) + 2


@pytest.mark.parametrize("module", TESTS)
def test_examples_pass(tmp_path, module):
    for name, text in FILES:
        (tmp_path / name).write_text(text, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AZML", "AZUREML"))}
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", module]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=50
    )
    assert done.returncode == 0, done.stdout.decode()
    assert b" passed in " in done.stdout
