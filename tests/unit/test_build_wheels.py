"""How ``make wheels`` builds (``tools/build_wheels.py``), and which Pythons try the wheels (``tools/pythons.py``)."""

from __future__ import annotations

import sys

import pytest

from tools import build_wheels, pythons, try_wheel


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


def test_a_python_is_found_by_release_and_platform(tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho cpython-314t-riscv64-linux-gnu\n")
    script.chmod(0o755)
    assert pythons.find("3.14t", "riscv64-linux-gnu", [str(script)]) == str(script)
    assert pythons.find("3.14", "riscv64-linux-gnu", [str(script)]) is None
    assert pythons.abi(str(tmp_path / "absent")) == ""


def test_the_published_server_gets_no_option_that_it_refuses():
    assert try_wheel.command("1.5.1", ["--port", "5005"])[3:] == ["--entry_script", "score.py", "--port", "5005"]
    assert try_wheel.command("2.0.0", [])[3:] == ["--entry_script", "score.py", "--port", "0", "--host", "127.0.0.1"]
