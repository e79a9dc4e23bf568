"""docs/async.md: its scripts, as they stand, are served, and do what the page says."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "async.md"
FILE = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = dict(FILE.findall(PAGE.read_text("utf-8")))


def test_every_block_of_code_is_served():
    assert len(FILES) == PAGE.read_text("utf-8").count("\n```") // 2 == 3


@pytest.fixture
def served(start, tmp_path):
    def serve(name):
        path = tmp_path / name
        path.write_text(FILES[name], "utf-8")
        return start(str(path))

    return serve


def test_calls_that_await_wait_together(served):
    server = served("score.py")
    began = time.monotonic()
    asked = [server.score_later(json.dumps({"name": str(number)})) for number in range(50)]
    assert [each.result().json() for each in asked] == [{"message": f"hello {number}"} for number in range(50)]
    assert time.monotonic() - began < 50 * 0.2, "they did not wait for each other"


def test_an_async_generator_is_streamed(served):
    reply = served("stream.py").score("a bc")
    assert (reply["content-type"], reply.body) == ("text/event-stream", b"data: a\n\ndata: bc\n\n")


def test_blocking_code_in_threads_waits_together(served):
    asked = [server.score_later("x" * 7) for server in [served("blocking.py")] for _ in range(4)]
    assert [each.result().json() for each in asked] == [7] * 4
