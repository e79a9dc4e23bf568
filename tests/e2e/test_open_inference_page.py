"""docs/open-inference.md: its scripts, as they stand, are served, and answer its requests as the page says."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "open-inference.md").read_text("utf-8")
FILES = dict(re.findall(r"^<!-- file: (\S+) -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
# A command of curl, and the answer below it.
CALLS = re.findall(r"^```bash\n(curl .*?)\n```\n\n```json\n(.*?)\n```$", PAGE, re.MULTILINE)


@pytest.fixture
def served(start, tmp_path):
    def serve(name):
        path = tmp_path / name
        path.write_text(FILES[name], "utf-8")
        return start(str(path), "--protocols", "score,v2")

    return serve


def test_each_command_of_curl_gets_its_answer(served):
    assert len(CALLS) == 2
    server = served("score.py")
    for command, answer in CALLS:
        words = shlex.split(command)
        body = words[words.index("-d") + 1] if "-d" in words else None
        path = words[-1].removeprefix("http://127.0.0.1:5001")
        response = server.get(path) if body is None else server.request("POST", path, body)
        assert response.body.decode() == answer


def test_a_model_without_schemas_gets_tensors(served):
    tensor = {"name": "data", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
    body = json.dumps({"inputs": [tensor], "parameters": {"scale": 10}})
    outputs = served("raw.py").request("POST", "/v2/models/raw/infer", body).json()["outputs"]
    assert [(output["name"], output["data"]) for output in outputs] == [("sum", [30.0, 70.0]), ("largest", [2.0, 4.0])]
