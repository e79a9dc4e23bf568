"""azureml.contrib.services aliases: every import form, with and without a real azureml package
(contract section 4).

Each case runs in an interpreter of its own, because imports cannot be undone.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PREAMBLE = """
import sys
from azureml_inference_server_http import contrib_services
contrib_services.install()
contrib_services.install()
assert "flask" not in sys.modules
"""
FORMS = {
    "from leaf": "from azureml.contrib.services.aml_request import AMLRequest, rawhttp",
    "import leaf": "import azureml.contrib.services.aml_request; A = azureml.contrib.services.aml_request",
    "import leaf as": "import azureml.contrib.services.aml_request as A",
    "from package": "from azureml.contrib.services import aml_request as A",
    "import_module": "import importlib; A = importlib.import_module('azureml.contrib.services.aml_request')",
    "star": "from azureml.contrib.services.aml_request import *",
}
SAME = """
from azureml_inference_server_http.api import aml_request
found = A if "A" in globals() else sys.modules[__name__]
assert found.AMLRequest is aml_request.AMLRequest and found.rawhttp is aml_request.rawhttp
assert sys.modules["azureml.contrib.services.aml_request"] is aml_request
assert aml_request.__name__ == "azureml_inference_server_http.api.aml_request"
assert aml_request.__spec__.name == aml_request.__name__
"""
REAL_PACKAGES = {
    "none": {},
    "namespace": {"azureml/ai/monitoring.py": "x = 1"},
    "regular": {"azureml/__init__.py": "", "azureml/ai/__init__.py": "", "azureml/ai/monitoring.py": "x = 1"},
    "contrib too": {
        "azureml/__init__.py": "",
        "azureml/contrib/__init__.py": "",
        "azureml/contrib/services/__init__.py": "",
        "azureml/contrib/services/aml_request.py": "raise AssertionError('the real module must not be imported')",
        "azureml/contrib/services/other.py": "x = 1",
        "azureml/ai/monitoring.py": "x = 1",
    },
}


def run(code, path=None):
    code = PREAMBLE + (f"sys.path.append({str(path)!r})\n" if path else "") + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("real", REAL_PACKAGES)
@pytest.mark.parametrize("form", FORMS)
def test_import_form(form, real, tmp_path):
    for name, text in REAL_PACKAGES[real].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    check = "import azureml.ai.monitoring as m; assert m.x == 1" if real != "none" else ""
    run(f"{check}\n{FORMS[form]}\n{SAME}\n{check}", tmp_path)


def test_response_module_is_an_alias_too():
    run("""
        from azureml.contrib.services.aml_response import AMLResponse
        from azureml_inference_server_http.api.aml_response import AMLResponse as Own
        assert AMLResponse is Own
    """)


def test_other_real_modules_beside_the_aliases_stay_importable(tmp_path):
    for name, text in REAL_PACKAGES["contrib too"].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    run("from azureml.contrib.services import other; assert other.x == 1", tmp_path)


def test_nothing_else_is_invented():
    out = run("""
        import importlib
        for name in ("azureml.core", "azureml.contrib.services.nothing", "azureml.contrib.other"):
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as exc:
                print(exc.name)
    """)
    assert out.split() == ["azureml.core", "azureml.contrib.services.nothing", "azureml.contrib.other"]
