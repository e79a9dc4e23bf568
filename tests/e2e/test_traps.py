"""Hints in the log about silent traps: each once, and none for a script without them."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.any_worker_class

SCRIPT = """
import json, logging
from azureml_inference_server_http.api.aml_response import AMLResponse
logger = logging.getLogger("entry_module")

def init(): pass

def run(data):
    if data == "lost":
        logger.info("nobody sees this")
    return {
        "fine": [1, "NaN", ("a", 400), {"Infinity": 1}],
        "status": ({"message": "no"}, 400),
        "twice": json.dumps({"a": 1}),
        "nan": {"rows": [1.0, float("nan")]},
        "set": {"rows": {1}},
        "response": AMLResponse({"a": 1}, 200) if data == "response" else None,
        "lost": "x",
    }[data]
"""
PLAIN = SCRIPT.replace("from azureml_inference_server_http.api.aml_response import AMLResponse\n", "")
HINTS = {
    "status": "Hint: run() returned a tuple with the status 400",
    "twice": "Hint: run() returned JSON text",
    "nan": "Hint: The result of run() has a NaN or an infinity",
    "set": "Hint: The result of run() has a set",
}


def hints(server):
    return [record.message for record in server.records(level="W") if "Hint: " in record.message]


@pytest.mark.parametrize("script", [PLAIN, SCRIPT], ids=["plain", "flask"])
def test_each_trap_is_hinted_at_once(start, tmp_path, script):
    (tmp_path / "score.py").write_text(script)
    server = start(str(tmp_path / "score.py"))
    assert server.score("fine").status == 200
    assert hints(server) == []
    for data, hint in HINTS.items():
        for _ in range(2):
            server.score(data)
        server.wait_for_record(hint, level="W")
    assert len(hints(server)) == len(HINTS)


def test_a_nan_in_a_frame_is_hinted_at(start, tmp_path):
    text = "import pandas\ndef init(): pass\ndef run(data): return pandas.DataFrame({'a': [1.0, float('nan')]})\n"
    (tmp_path / "score.py").write_text(text)
    server = start(str(tmp_path / "score.py"))
    assert server.score("x").body == b'[{"a": 1.0}, {"a": NaN}]'
    server.wait_for_record(HINTS["nan"], level="W")


def test_a_response_made_from_a_dict_is_hinted_at(start, tmp_path):
    (tmp_path / "score.py").write_text(SCRIPT)
    server = start(str(tmp_path / "score.py"))
    assert server.score("response").body == b"a"
    server.wait_for_record("Hint: AMLResponse was made from a dict without json_str=True", level="W")


@pytest.mark.parametrize("script", [PLAIN, SCRIPT], ids=["plain", "flask"])
def test_logging_that_goes_nowhere_is_hinted_at_after_the_first_call(start, tmp_path, script):
    (tmp_path / "score.py").write_text(script)
    server = start(str(tmp_path / "score.py"))
    server.score("lost")
    record = server.wait_for_record("Hint: The script calls logging.getLogger('entry_module').info()", level="W")
    assert "logging.getLogger().setLevel(logging.INFO)" in record.message


def test_logging_in_init_that_goes_nowhere_is_hinted_at(start, tmp_path):
    text = "import logging\ndef init(): logging.info('loading')\ndef run(data): return 1\n"
    (tmp_path / "score.py").write_text(text)
    server = start(str(tmp_path / "score.py"))
    server.wait_for_record("Hint: The script calls logging.info()", level="W")
    shown = text.replace("logging.info(", "logging.getLogger().setLevel(logging.INFO); logging.info(")
    (tmp_path / "score.py").write_text(shown)
    server = start(str(tmp_path / "score.py"))
    assert server.score("x").status == 200
    assert hints(server) == []
