"""How the command and its package can be entered, and what that imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starting import Start

import azureml_inference_server_http as package

# ---- Entry points


@pytest.mark.parametrize("module", ["__main__", "amlserver"])
def test_modules_can_be_run(module: str, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["somewhere/__main__.py", "--entry_script", "s.py"])
    file = Path(package.__file__ or "").with_name(f"{module}.py")
    # Not runpy, because pytest 9.2 imports an editable package by a loader that runpy cannot use.
    code = compile(file.read_text(encoding="utf-8"), file, "exec")
    with pytest.raises(SystemExit) as caught:
        exec(code, {"__name__": "__main__", "__package__": package.__name__})
    assert caught.value.code == 42


def test_old_console_entry() -> None:
    from azureml_inference_server_http import __main__, amlserver

    assert amlserver.run is __main__.run


def python(*arguments: str) -> str:
    """Run a new interpreter, which finds the package under test even with -S. Returns its
    output."""
    folder = Path(package.__file__ or "").parents[1]
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, timeout=30, check=True
    ).stdout


def test_with_the_real_logging_config() -> None:
    """Runs in a process of its own, because logging is configured for a whole process."""
    code = f"""
import os, sys, types
from {package.__name__} import supervise
start = types.ModuleType("start")
start.run = lambda settings, clients, watch: print("pid", os.getpid()) or 0
supervise.start = sys.modules["{package.__name__}.supervise.start"] = start
from {package.__name__}.launch import cli
sys.exit(cli.main(["--entry_script", "s.py", "--model_dir", "m"]))
"""
    lines = python("-c", code).splitlines()
    pid = lines[-1].replace("pid ", "")
    assert f" I [{pid}] azmlinfsrv - Loaded logging config from " in lines[0]
    assert lines[2].startswith("Azure ML Inferencing HTTP server v")


def test_start_up_imports_nothing_heavy() -> None:
    heavy = [
        "inspect",
        "dataclasses",
        "importlib.metadata",
        "shutil",
        "logging.config",
        "pathlib",
        "asyncio",
        "email",
        "json",
        "flask",
    ]
    code = (
        f"import sys, {package.__name__}.launch.cli as cli; "
        "cli.options.build_parser().parse_args(['--entry_script', 's.py']); "
    )
    # With -S, because modules that a .pth file of another package imports do not count.
    loaded = python("-S", "-c", code + f"print([name for name in {heavy!r} if name in sys.modules])")
    assert loaded.strip() == "[]"


@pytest.mark.parametrize("is_editable", [False, True])
def test_version_of_the_package(tmp_path: Path, is_editable: bool) -> None:
    """The version is read from the metadata folder, and only when it is asked for. The folder is beside the package,
    or elsewhere on the path if the installation is editable."""
    copy = tmp_path / "source" / "azureml_inference_server_http"
    copy.mkdir(parents=True)
    (copy / "__init__.py").write_bytes(Path(package.__file__ or "").read_bytes())
    site = tmp_path / "site" if is_editable else tmp_path / "source"
    (site / "azureml_inference_server_http-4.5.6.dist-info").mkdir(parents=True)
    code = (
        f"import sys; sys.path[:0] = [{str(copy.parent)!r}, {str(site)!r}]; import {package.__name__} as p; "
        "early = '__version__' in vars(p); print(early, p.__version__, p._HAS_DEBUGPY_SUPPORT, "
        "'importlib.metadata' in sys.modules)"
    )
    assert python("-S", "-c", code).strip() == "False 4.5.6 True False"


def test_unknown_names_of_the_package() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _: Any = package.nothing
