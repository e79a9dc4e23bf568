"""How ``make wheels`` builds (``tools/build_wheels.py``), and which Pythons try the wheels (``tools/pythons.py``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest import mock

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


MANYLINUX_310 = ["--system", "manylinux", "--release", "3.10", "--keep"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file", "objdump"), "FileNotFoundError: [Errno 2] No such file: 'objdump'"),
        (subprocess.CalledProcessError(1, ["objdump", "-p"]), "objdump -p ended with code 1"),
    ],
)
def test_a_check_that_fails_stops_no_trial_and_no_other_wheel(builds, monkeypatch, tmp_path, capsys, error, said):
    monkeypatch.setattr(build_wheels.wheel_checks, "faults", mock.Mock(side_effect=error))
    monkeypatch.setattr(build_wheels, "try_it", lambda wheel, release, system, more: "served")
    assert build_wheels.main(["--out", str(tmp_path), *MANYLINUX_310, "--release", "3.11"]) == 1
    assert capsys.readouterr().out.split("| --- | --- | --- |\n")[1].splitlines() == [
        "| `package.tar.gz` | 0.0 MiB |  |",
        "| `package-cp310.whl` | 0.0 MiB | served |",
        "| `package-cp311.whl` | 0.0 MiB | served |",
        f"WRONG: package-cp310.whl: {said}",
        f"WRONG: package-cp311.whl: {said}",
    ]


@pytest.mark.parametrize(
    ("differences", "end", "said"),
    [
        (lambda *arguments: [], "", None),
        (lambda *arguments: ["other bytes"], ": FAILED, see below", "other bytes"),
        (mock.Mock(side_effect=OSError("disk full")), ": FAILED, see below", "OSError: disk full"),
    ],
)
def test_a_second_build_that_fails_is_no_trial_that_fails(
    builds, monkeypatch, tmp_path, capsys, differences, end, said
):
    monkeypatch.setattr(build_wheels, "try_it", lambda wheel, release, system, more: "served")
    monkeypatch.setattr(build_wheels, "differences", differences)
    assert build_wheels.main(["--out", str(tmp_path), *MANYLINUX_310, "--twice"]) == (1 if said else 0)
    assert capsys.readouterr().out.split("| --- | --- | --- |\n")[1].splitlines()[1:] == [
        f"| `package-cp310.whl` | 0.0 MiB | served; built again from the sdist{end} |",
        *([f"WRONG: package-cp310.whl: {said}"] if said else []),
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


@pytest.mark.parametrize("error", [subprocess.CalledProcessError(1, ["gcc"]), KeyError("deploy-stub")])
def test_a_step_that_fails_is_told_and_no_python_is_found(monkeypatch, tmp_path, capsys, error):
    monkeypatch.setattr(free_threaded_python, "make", mock.Mock(side_effect=error))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(pythons.shutil, "which", lambda name: None)
    assert pythons.find("3.14t") is None
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"3.14t-x86_64-linux-gnu: this Python could not be made: {error}"


@pytest.fixture
def altinstall(monkeypatch):
    """A CPython for musl whose sources are compiled without a compiler. What is yielded is the exit code of its
    installation, which begins with the interpreter."""
    code = [0]

    def run(command, folder, **variables):
        if "altinstall" in command:
            # DESTDIR comes before the prefix that the interpreter was configured for.
            destination = command[-1].partition("=")[2] if command[-1].startswith("DESTDIR=") else ""
            program = Path(f"{destination}{prefix[0]}", "bin", f"python{musl_python.RELEASE}")
            program.parent.mkdir(parents=True)
            program.touch()
            if code[0]:
                raise debian_python.Missing("make altinstall: No space left on device")
        elif "--prefix" in command:
            prefix[:] = [command[command.index("--prefix") + 1]]

    def unpacked(folder, package, suite):
        folder.mkdir()
        return folder

    prefix: list[str] = []
    monkeypatch.setattr(musl_python.shutil, "which", lambda name: name)
    monkeypatch.setattr(musl_python, "_unpacked", unpacked)
    monkeypatch.setattr(musl_python, "_run", run)
    return code


def test_half_a_python_for_musl_is_never_found(altinstall, tmp_path):
    folder = tmp_path / "pythons" / "3.13"
    for _ in range(2):
        altinstall[0] = 2
        with pytest.raises(debian_python.Missing, match="No space left"):
            musl_python.make(folder)
        assert not folder.exists()
    altinstall[0] = 0
    python = musl_python.make(folder)
    assert python == folder / "bin" / "python3.13"
    assert python.exists()
    assert [path.name for path in folder.parent.iterdir()] == ["3.13"]


def test_a_python_is_found_by_release_and_platform(tmp_path):
    script = script_of(tmp_path, "cpython-314t-riscv64-linux-gnu")
    assert pythons.find("3.14t", "riscv64-linux-gnu", [str(script)]) == str(script)
    assert pythons.find("3.14", "riscv64-linux-gnu", [str(script)]) is None
    assert pythons.abi(str(tmp_path / "absent")) == ""


def test_the_published_server_gets_no_option_that_it_refuses():
    assert try_wheel.command("1.5.1", ["--port", "5005"])[3:] == ["--entry_script", "score.py", "--port", "5005"]
    assert try_wheel.command("2.0.0", [])[3:] == ["--entry_script", "score.py", "--port", "0", "--host", "127.0.0.1"]
