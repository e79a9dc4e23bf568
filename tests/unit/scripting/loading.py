"""Loads a script from its text, for the tests of several files."""

from __future__ import annotations

import os
import textwrap

import pytest

from azureml_inference_server_http.scripting import loading as scripting
from azureml_inference_server_http.server import user_script

QUALIFIED = "azureml_inference_server_http.server.user_script."
GOOD = "def init(): pass\ndef run(data): return data\n"
SCHEMA = """
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType as P
def init(): pass
"""


def load(settings, text=GOOD, name="score.py"):
    path = os.path.join(settings.app_root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(textwrap.dedent(text))
    return scripting.load(settings)


def fail(settings, log, text, name="score.py"):
    with pytest.raises(user_script.ScriptLoadError):
        load(settings, text, name)
    errors = [(level, logger, message) for level, logger, message in log() if level == "E"]
    assert all(logger == "azmlinfsrv" for _, logger, _ in errors)
    return [message for _, _, message in errors]
