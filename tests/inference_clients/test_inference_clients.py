"""The clients of the Open Inference Protocol that people use, against the real command.

They have many packages, so they are in an environment of their own: `make test-v2`. INFERENCE_CLIENTS names its folder
of programs. Without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
CLIENTS = Path(os.environ.get("INFERENCE_CLIENTS", FOLDER.parents[1] / ".venv-clients" / "bin"))
PYTHON = CLIENTS / "python"
# Seconds for one program. The import of kserve alone takes a minute on a busy machine.
PATIENCE = 240

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not PYTHON.exists(), reason="tritonclient and kserve are in an environment of their own: make test-v2"
    ),
    pytest.mark.any_worker_class,
]


def told(program: str, server) -> dict:
    """What the program with the client prints."""
    arguments = [str(PYTHON), str(FOLDER / program), str(server.port)]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_tritonclient_sends_and_gets_every_type(shared):
    types = ["BOOL", *(f"UINT{bits}" for bits in (8, 16, 32, 64)), *(f"INT{bits}" for bits in (8, 16, 32, 64))]
    errors = [
        "[500] An unexpected error occurred in scoring script. Check the logs for more info.",
        '[404] There is no model "other". This server has the model "raw_v2" (--model_name).',
    ]
    assert told("with_triton.py", shared("raw_v2.py", "--protocols", "score,v2")) == {
        "live": True,
        "ready": True,
        "model ready": True,
        "version ready": True,
        "other ready": False,
        "server": ["binary_tensor_data"],
        "model": "raw_v2",
        "binary": [*types, "FP16", "FP32", "FP64", "BYTES"],
        "json": [*types, "FP32", "FP64", "BYTES"],
        "id": "7",
        "large": True,
        "errors": errors,
    }


def test_the_client_of_kserve_sends_and_gets_tensors(shared):
    found = told("with_kserve.py", shared("raw_v2.py", "--protocols", "score,v2"))
    assert 'There is no model "other".' in found.pop("error")
    assert found == {
        "live": True,
        "ready": True,
        "model ready": True,
        "other ready": False,
        "binary": ["FP32", "INT64", "FP16"],
        "json": ["FP32", "INT64"],
        "id": "7",
    }


def test_the_example_of_the_page_works_word_for_word(start, tmp_path):
    """Only the port differs."""
    page = (FOLDER.parents[1] / "docs" / "open-inference.md").read_text(encoding="utf-8")
    blocks = page.split("```python\n")[1:]
    code = [block.split("```")[0] for block in blocks]
    script = tmp_path / "score.py"
    script.write_text(code[0])
    server = start(str(script), "--protocols", "score,v2")
    [example] = [text for text in code if "tritonclient" in text]
    program = example.replace("127.0.0.1:5001", f"127.0.0.1:{server.port}")
    ended = subprocess.run([str(PYTHON), "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (ended.returncode, ended.stdout) == (0, "[3. 7.]\n"), ended.stderr
