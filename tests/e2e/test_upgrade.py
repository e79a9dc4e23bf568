"""pip installs the server over the published 1.5.1, and 1.5.1 over the server: what ``make test-install`` does, without
a network. ``tools/try_install.py`` is the long form."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

import azureml_inference_server_http

ROOT = Path(__file__).resolve().parents[2]
# `make ci` and `make conform` install 1.5.1 there, with the packages that it needs.
REFERENCE = ROOT / ".venv-reference"
NAME = "azureml-inference-server-http"
# What pip writes when it installs, and takes away itself.
WRITTEN_BY_PIP = ("INSTALLER", "REQUESTED", "RECORD", "direct_url.json")

pytestmark = [
    pytest.mark.skipif(not REFERENCE.exists(), reason="1.5.1 is not installed in .venv-reference (make conform)"),
    pytest.mark.timeout(300),
]


def link(source: str, target: str) -> None:
    """Give a file a second name, which costs no space. pip replaces files, and writes into none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def wheel_of(installed: Distribution, package: Path, folder: Path) -> Path:
    """A wheel with the files of an installed distribution: what pip would have installed it from."""
    (tag,) = (line[5:] for line in (installed.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: "))
    stem = f"{NAME.replace('-', '_')}-{installed.version}"
    metadata = Path(str(installed.locate_file(f"{stem}.dist-info")))
    wheel = folder / f"{stem}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for top in (package, metadata):
            for file in top.rglob("*"):
                if file.is_file() and file.name not in WRITTEN_BY_PIP and "__pycache__" not in file.parts:
                    archive.write(file, file.relative_to(top.parent).as_posix())
        archive.writestr(f"{stem}.dist-info/RECORD", "".join(f"{name},,\n" for name in archive.namelist()))
    return wheel


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def other_packages(packages: Path) -> set[str]:
    """The names and versions of what is installed in this folder beside the server."""
    return {path.name for path in packages.glob("*.dist-info") if not path.name.startswith(NAME.replace("-", "_"))}


def test_an_upgrade_from_1_5_1_and_back_leaves_a_server_that_works(tmp_path):
    environment = tmp_path / "environment"
    shutil.copytree(REFERENCE.resolve(), environment, symlinks=True, copy_function=link)
    python = str(environment / "bin" / "python")
    packages = next(environment.glob("lib/python*/site-packages"))
    package = packages / NAME.replace("-", "_")
    published = wheel_of(next(iter(Distribution.discover(name=NAME, path=[str(packages)]))), package, tmp_path)
    new = wheel_of(distribution(NAME), Path(azureml_inference_server_http.__file__).parent, tmp_path)
    before = other_packages(packages)
    for wheel in (new, published, new):
        run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index", str(wheel))
        # Not run(): 1.5.1 prints its help and ends with code 1.
        command = [str(environment / "bin" / "azmlinfsrv"), "--help"]
        assert "--entry_script" in subprocess.run(command, capture_output=True, text=True, check=False).stdout
    run(sys.executable, "-m", "pip", "--python", python, "check")
    run(python, str(ROOT / "tools" / "try_wheel.py"))
    assert other_packages(packages) == before
