"""Submodules of the standard library that scripts use after importing only their package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from azureml_inference_server_http.scripting import lean_imports

NAMES = sorted(f"{package}.{name}" for package, names in lean_imports.SUBMODULES.items() for name in names)


def run(code, *arguments):
    """Run the code in a new interpreter with the hooks installed. Returns the JSON that it
    prints."""
    # With -I and -S, so that only Python itself has imported modules.
    root = str(Path(lean_imports.__file__).parents[2])
    start = f"import sys; sys.path.append({root!r})\nfrom azureml_inference_server_http.scripting import lean_imports\n"
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", f"{start}lean_imports.install()\n{code}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


REACH = """
import importlib, importlib.util, json
first, *rest = sys.argv[1].split(".")
found = importlib.import_module(first)
for part in rest:
    found = getattr(found, part, None)
try:
    exists = importlib.util.find_spec(sys.argv[1]) is not None
except ModuleNotFoundError:
    exists = False
print(json.dumps([exists, getattr(found, "__name__", None)]))
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_a_submodule_is_there_once_its_package_is(name):
    exists, found = run(REACH, name)
    assert found == (name if exists else None)


def test_nothing_is_imported_before_a_script_asks():
    code = """
import json
before = set(sys.modules)
import concurrent, http, xml
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    assert run(code) == ["concurrent", "http", "xml"]


def test_other_attributes_are_missing_as_ever():
    code = """
import xml
try:
    xml.sax
except AttributeError as error:
    text = str(error)
print(__import__("json").dumps([text, hasattr(xml, "no"), "exec_module" in vars(xml.__spec__.loader)]))
"""
    assert run(code) == ["module 'xml' has no attribute 'sax'", False, False]


def test_a_module_of_the_users_own_of_that_name_is_left_alone(tmp_path):
    (tmp_path / "xml.py").write_text("x = 1")
    code = f"sys.path.insert(0, {str(tmp_path)!r})\nimport xml\nprint([xml.x, int('__getattr__' in vars(xml))])"
    assert run(code) == [1, 0]


def test_a_package_with_a_getattr_of_its_own_keeps_it(tmp_path):
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml" / "__init__.py").write_text("def __getattr__(name): return 7")
    assert run(f"sys.path.insert(0, {str(tmp_path)!r})\nimport xml\nprint([xml.etree])") == [7]


def test_classes_of_a_submodule_at_the_top_of_a_script():
    code = """
import concurrent, http
class Executor(concurrent.futures.ThreadPoolExecutor): pass
class Handler(http.server.BaseHTTPRequestHandler): pass
print(Executor(1).submit(lambda: 3).result())
"""
    assert run(code) == 3
