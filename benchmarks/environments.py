"""Installs what is measured: a virtual environment for each candidate, the wheel of this server,
the bare HTTP server.

Owns the folder ``.bench`` except its logs and payloads. What does not install is reported and left
out, not fatal. Size and number of packages are taken right after a candidate's own requirements,
before anything else goes into its folder. Runs once, before the rounds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .candidates import OURS, SCRIPT_REQUIREMENTS, Candidate

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".bench"
TARGET = FOLDER / "target"
WHEELS = FOLDER / "wheel"
EXAMPLE = ROOT / "examples" / "sklearn"
MODEL = FOLDER / "iris" / "models" / "iris" / "1"
PEERS = ROOT / "benchmarks" / "peers"
# Packages that every virtual environment has. They are not counted.
NOT_COUNTED = {"pip", "setuptools", "wheel"}

# Runs in the measured environment: its distributions, and the bytes of every file that they own or
# that was compiled from them, which is all of site-packages but the installer.
INVENTORY = """
import importlib.metadata, json, os, sysconfig
folder = sysconfig.get_path("purelib")
names = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions(path=[folder])}
size = sum(
    os.lstat(os.path.join(where, name)).st_size
    for top in os.listdir(folder)
    if not top.startswith(("pip", "setuptools", "pkg_resources", "_distutils", "distutils-", "wheel"))
    for where, _, files in os.walk(os.path.join(folder, top))
    for name in files
)
print(json.dumps({"versions": names, "bytes": size}))
"""


class CannotInstall(Exception):
    """A candidate cannot be measured. The text says why, in one line."""


@dataclass(frozen=True)
class Installed:
    """The place of a candidate's programs, and the size of its installation."""

    bin: Path
    versions: dict[str, str]
    # 0 if the environment was not made here.
    packages: int = 0
    bytes: int = 0


def prepare(candidate: Candidate, given: Path | None) -> Installed:
    """Prepare a candidate, so that it can be started. ``given`` is an interpreter that has this
    server already."""
    if candidate.is_bare:
        return _build_bare_server()
    if candidate.environment_name == OURS and given is not None:
        installed = Installed(given.parent, _inventory(given)["versions"])
    else:
        installed = _install(candidate)
    if candidate.needs_option and candidate.needs_option not in _help(installed.bin / "azmlinfsrv"):
        raise CannotInstall(f"this build has no option {candidate.needs_option}")
    return installed


def train_example(python: Path) -> None:
    """The model of examples/sklearn, trained in a copy so that the example's own folder stays as it
    is."""
    if not (MODEL / "model.joblib").exists():
        MODEL.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLE / "train.py", FOLDER / "iris" / "train.py")
        _run([python, FOLDER / "iris" / "train.py"], "training the scikit-learn example")


def _install(candidate: Candidate) -> Installed:
    home = FOLDER / candidate.environment_name
    requirements = [*candidate.requirements] or [str(_wheel())]
    record = home / "installed.json"
    wanted = {"requirements": [_stamp(each) for each in requirements], "python": sys.version.split()[0]}
    if not record.exists() or (saved := json.loads(record.read_text("utf-8")))["wanted"] != wanted:
        shutil.rmtree(home, ignore_errors=True)
        _run([sys.executable, "-m", "venv", home], "making a virtual environment")
        print(f"installing {candidate.name} ...", flush=True)
        _pip(home, requirements)
        saved = {"wanted": wanted, **_inventory(home / "bin" / "python")}
        if candidate.runs_numpy:
            _pip(home, SCRIPT_REQUIREMENTS)
        record.write_text(json.dumps(saved, indent=2), "utf-8")
    counted = set(saved["versions"]) - NOT_COUNTED
    return Installed(home / "bin", saved["versions"], packages=len(counted), bytes=saved["bytes"])


def _wheel() -> Path:
    """The newest wheel that make has built."""
    found = sorted(WHEELS.glob("azureml_inference_server_http-*.whl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise CannotInstall(
            f"no wheel in {WHEELS.relative_to(ROOT)}: `make bench` builds one, --candidate names another"
        )
    return found[-1]


def _stamp(requirement: str) -> str:
    """A requirement. If it is a file, its time is added, so that a wheel that was built again
    counts as another one."""
    path = Path(requirement)
    return f"{path.name} {path.stat().st_mtime_ns}" if path.exists() else requirement


def _pip(home: Path, requirements: Iterable[str]) -> None:
    _run([home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], "pip install")


def _inventory(python: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(_run([python, "-c", INVENTORY], "listing the packages"))
    return told


def _build_bare_server() -> Installed:
    if shutil.which("cargo") is None:
        raise CannotInstall("cargo was not found")
    manifest = PEERS / "actix_bare" / "Cargo.toml"
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--manifest-path", manifest]
    _run([*command, "--target-dir", TARGET], "building the bare HTTP server")
    lock = (PEERS / "actix_bare" / "Cargo.lock").read_text("utf-8")
    version = lock.split('name = "actix-web"\nversion = "', 1)[1].split('"', 1)[0]
    return Installed(TARGET / "release", {"actix-web": version})


def _help(command: Path) -> str:
    return subprocess.run([command, "--help"], capture_output=True, text=True, check=False).stdout


def _run(command: list[object], what: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise CannotInstall(f"{what} failed: {lines[-1]}")
    return done.stdout
