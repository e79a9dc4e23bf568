"""Which packages are named, and which imports are of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from azureml_inference_server_http.validation.requirements import RequirementsError, imports_of, named_in, unnamed


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_a_requirements_file(tmp_path: Path):
    write(tmp_path / "more.txt", "pandas\n")
    text = """\
# a comment
numpy>=1.2,<3  # another
Scikit_Learn[extra]==1.3 ; python_version > "3.8"
torch @ https://example.org/torch.whl
git+https://example.org/x.git#egg=my_own&subdirectory=a
-r more.txt
--index-url https://example.org
-e .
"""
    assert named_in(write(tmp_path / "requirements.txt", text)) == {
        *("numpy", "scikit-learn", "torch", "my-own", "pandas"),
    }


def test_a_conda_file(tmp_path: Path):
    text = """\
name: model
channels:
  - conda-forge
dependencies:
  - python=3.11
  - conda-forge::numpy=1.26
  - "pandas>=2"
  - pip:
      - Scikit_Learn==1.3
      - azureml-inference-server-http
variables:
  - not: this
"""
    assert named_in(write(tmp_path / "conda.yaml", text)) == {
        *("python", "numpy", "pandas", "scikit-learn", "azureml-inference-server-http"),
    }


def test_a_conda_file_with_lists_that_are_not_indented(tmp_path: Path):
    text = "dependencies:\n- numpy\n- pip:\n  - torch\n"
    assert named_in(write(tmp_path / "conda.yml", text)) == {"numpy", "torch"}


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(RequirementsError, match="cannot be read"):
        named_in(str(tmp_path / "absent.txt"))


def test_import_statements(tmp_path: Path):
    text = """\
import os, numpy.linalg
from pandas import DataFrame
from . import beside
try:
    import ujson as json
except ImportError:
    import json
try:
    import torch
finally:
    pass
if TYPE_CHECKING:
    import typed
def run():
    import late
"""
    found = [(each.module, each.line) for each in imports_of(write(tmp_path / "score.py", text))]
    assert found == [("os", 1), ("numpy", 1), ("pandas", 2), ("json", 7), ("torch", 9), ("late", 15)]


def test_unnamed_packages(tmp_path: Path):
    text = """\
import json
import flask
import numpy
import sklearn
import beside
import not_installed_anywhere
from azureml.contrib.services.aml_request import rawhttp
"""
    sources = [write(tmp_path / "score.py", text), write(tmp_path / "beside.py", "import PIL\n")]
    found = {each.found.module: each for each in unnamed(sources, {"scikit-learn"})}
    assert set(found) == {"numpy", "PIL", "not_installed_anywhere"}
    assert (found["numpy"].package, found["numpy"].needed_by) == ("numpy", "scikit-learn")
    assert (found["PIL"].package, found["PIL"].needed_by) == ("pillow", None)
    assert found["not_installed_anywhere"].package is None
    assert unnamed(sources, {"numpy", "scikit-learn", "pillow", "not-installed-anywhere"}) == []
