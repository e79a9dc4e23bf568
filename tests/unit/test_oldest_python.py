"""The package loads on CPython 3.9, whatever Python runs the other tests."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

import azureml_inference_server_http
from tools import pythons

PACKAGE = Path(azureml_inference_server_http.__file__).parent
# Base classes that take a type in brackets on CPython 3.9. Those of logging do not.
GENERIC = {"Generic", "Protocol", "dict", "list", "Mapping", "Iterator"}
# Imports every module, with a stand-in for the native one, and prints what fails but for packages that are not there.
LOAD = """
import importlib, pkgutil, sys
from unittest import mock
import azureml_inference_server_http as package
sys.modules[package.__name__ + "._core"] = package._core = mock.MagicMock()
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if module.name.endswith(("__main__", "server.entry")):
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        if package.__name__ in (error.name or ""):
            print(module.name, repr(error))
    except Exception as error:
        print(module.name, repr(error))
"""


def test_no_base_class_takes_a_type_that_the_oldest_python_refuses():
    bases = {
        ast.unparse(base.value)
        for file in PACKAGE.rglob("*.py")
        for part in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(part, ast.ClassDef)
        for base in part.bases
        if isinstance(base, ast.Subscript)
    }
    assert bases <= GENERIC


def test_every_module_loads():
    python = pythons.find("3.9")
    if python is None:
        pytest.skip("no CPython 3.9 was found")
    command = [python, "-c", LOAD]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
