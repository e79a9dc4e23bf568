"""docs/worker-threads.md: its script, as it stands, is served by its command."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "worker-threads.md").read_text("utf-8")


def test_the_script_of_the_page_runs_its_calls_at_once(start, script):
    [text] = re.findall(r"```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    [command] = re.findall(r"^azmlinfsrv --entry_script score.py (.*)$", TEXT, re.MULTILINE)
    server = start(script(text), *command.split())
    began = time.monotonic()
    asked = [server.score_later(json.dumps({"number": number})) for number in range(100)]
    assert [each.result().json() for each in asked] == [{"result": 2 * number} for number in range(100)]
    assert time.monotonic() - began < 100 * 0.2, "they did not wait for each other"
