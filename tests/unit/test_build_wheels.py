"""How ``make wheels`` builds (``tools/build_wheels.py``), and which Pythons try the wheels (``tools/pythons.py``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import build_wheels, debian_python, free_threaded_python, musl_python, pythons, try_wheel


@pytest.fixture
def compiler(monkeypatch):
    """A compiler that is installed in /opt/rust."""
    monkeypatch.setattr(build_wheels, "sysroot", lambda: "/opt/rust")


def test_the_compiler_for_linux_is_that_of_this_environment(compiler, tmp_path):
    variables = build_wheels.environment(tmp_path, tmp_path / "target", "x86_64-unknown-linux-gnu")
    assert variables["CARGO_ZIGBUILD_PYTHON_PATH"] == sys.executable
    assert variables["CARGO_TARGET_DIR"] == str(tmp_path / "target")


def test_no_folder_of_the_machine_is_named_in_a_wheel(compiler, tmp_path):
    flags = build_wheels.environment(tmp_path, tmp_path / "target")["CARGO_ENCODED_RUSTFLAGS"].split("\x1f")
    # The last one that fits counts, so that of the target folder comes after that of the sources around it.
    assert flags == [
        f"--remap-path-prefix={tmp_path}=/source",
        f"--remap-path-prefix={build_wheels.cargo_home()}=/cargo",
        "--remap-path-prefix=/opt/rust=/rust",
        f"--remap-path-prefix={tmp_path / 'target'}=/target",
    ]


# mingw's linker sorts the libraries by their paths, those of the compiler below /usr among them.
def test_the_folder_of_a_build_for_windows_comes_before_usr_wherever_it_is(compiler, tmp_path):
    folder = tmp_path / "target"
    for _ in range(2):
        named = build_wheels.environment(tmp_path, folder, "x86_64-pc-windows-gnu")["CARGO_TARGET_DIR"]
        assert named < "/usr"
    (folder / "file").touch()
    assert [path.name for path in build_wheels.Path(named).iterdir()] == ["file"]
    build_wheels.Path(named).unlink()


@pytest.fixture
def builds(monkeypatch, tmp_path):
    """Wheels of three releases: the first cannot be built, the others cannot be tried."""

    def build(system, release, profile, sources, target_folder, out):
        if release == "3.9":
            raise subprocess.CalledProcessError(1, ["maturin", "build"])
        wheel = out / f"package-cp{release.replace('.', '')}.whl"
        wheel.write_bytes(b"")
        return wheel

    def try_it(wheel, release, system, more):
        if release == "3.11":
            raise ValueError("no such archive")
        raise subprocess.CalledProcessError(2, ["python", "try_wheel.py"])

    (tmp_path / "package.tar.gz").write_bytes(b"")
    monkeypatch.setattr(build_wheels, "build_source_distribution", lambda out: tmp_path / "package.tar.gz")
    monkeypatch.setattr(build_wheels, "has_library", lambda target: "musl" not in target)
    monkeypatch.setattr(build_wheels, "build", build)
    monkeypatch.setattr(build_wheels, "try_it", try_it)
    monkeypatch.setattr(build_wheels.wheel_checks, "faults", lambda wheel, *private: [])


def test_what_fails_is_listed_and_the_others_are_built(builds, tmp_path, capsys):
    systems = ["--system", "musllinux", "--system", "manylinux"]
    releases = ["--release", "3.9", "--release", "3.10", "--release", "3.11"]
    assert build_wheels.main(["--out", str(tmp_path), *systems, *releases, "--keep"]) == 1
    table = capsys.readouterr().out.split("| --- | --- | --- |\n")[1]
    assert table.splitlines() == [
        "| `package.tar.gz` | 0.0 MiB |  |",
        "| `package-cp310.whl` | 0.0 MiB | FAILED, see below |",
        "| `package-cp311.whl` | 0.0 MiB | FAILED, see below |",
        "Left out: musllinux: Rust's standard library is not installed: rustup target add x86_64-unknown-linux-musl",
        "WRONG: manylinux 3.9: maturin build ended with code 1",
        "WRONG: package-cp310.whl: python try_wheel.py ended with code 2",
        "WRONG: package-cp311.whl: ValueError: no such archive",
    ]


def script_of(folder: Path, abi: str) -> Path:
    """A Python that only says what it loads."""
    script = folder / "python"
    script.write_text(f"#!/bin/sh\necho {abi}\n")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("maker", [musl_python, free_threaded_python])
def test_a_python_that_no_registry_has_is_made(maker, monkeypatch, tmp_path):
    abi = f"cpython-{maker.RELEASE.replace('.', '')}-{maker.PLATFORM}"
    monkeypatch.setattr(maker, "make", lambda folder: script_of(tmp_path, abi))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(pythons.shutil, "which", lambda name: None)
    assert pythons.find(maker.RELEASE, maker.PLATFORM) == str(tmp_path / "python")
    # It has no TLS.
    assert pythons.find(maker.RELEASE, maker.PLATFORM, for_pip=True) is None


def test_what_a_python_lacks_to_be_made_is_said(monkeypatch, tmp_path, capsys):
    def make(folder):
        raise debian_python.Missing("musl-gcc was not found: apt-get install musl-tools")

    monkeypatch.setattr(musl_python, "make", make)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    assert pythons.find(musl_python.RELEASE, musl_python.PLATFORM) is None
    assert capsys.readouterr().err == "musl-gcc was not found: apt-get install musl-tools\n"


def test_a_python_is_found_by_release_and_platform(tmp_path):
    script = script_of(tmp_path, "cpython-314t-riscv64-linux-gnu")
    assert pythons.find("3.14t", "riscv64-linux-gnu", [str(script)]) == str(script)
    assert pythons.find("3.14", "riscv64-linux-gnu", [str(script)]) is None
    assert pythons.abi(str(tmp_path / "absent")) == ""


def test_the_published_server_gets_no_option_that_it_refuses():
    assert try_wheel.command("1.5.1", ["--port", "5005"])[3:] == ["--entry_script", "score.py", "--port", "5005"]
    assert try_wheel.command("2.0.0", [])[3:] == ["--entry_script", "score.py", "--port", "0", "--host", "127.0.0.1"]
