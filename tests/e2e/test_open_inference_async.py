"""The Open Inference Protocol with an async run(), which only worker processes have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ON = ("--protocols", "score,v2")


@pytest.mark.parametrize("imports", ["", "import flask\n"])
def test_an_async_run_takes_and_returns_tensors(start, tmp_path, imports):
    text = (Path(__file__).parent.parent / "scripts" / "raw_v2.py").read_text()
    path = tmp_path / "model.py"
    path.write_text(imports + text.replace("def run(", "async def run("))
    server = start(str(path), *ON)
    tensor = {"name": "x", "shape": [1], "datatype": "INT8", "data": [7]}
    for parameters, status in (({}, 200), ({"do": "fail"}, 500), ({"do": "complex"}, 500)):
        body = json.dumps({"inputs": [tensor], "parameters": parameters, "id": "1"})
        response = server.request("POST", "/v2/models/model/infer", body)
        assert response.status == status, str(response)
        if status == 200:
            assert response.json()["outputs"][0]["data"] == [7]
            assert response.json()["id"] == "1"
        else:
            assert list(response.json()) == ["error"]
