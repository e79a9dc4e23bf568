"""What ``make wheels`` finds wrong with a wheel (``tools/wheel_checks.py``)."""

from __future__ import annotations

import zipfile

import pytest

from tools import wheel_checks

PACKAGE = "azureml_inference_server_http"
WHEEL = f"{PACKAGE}-2.0.0-cp311-cp311-manylinux_2_17_x86_64.whl"
MODULE = f"{PACKAGE}/_core.cpython-311-x86_64-linux-gnu.so"


@pytest.mark.parametrize(
    ("wheel", "module"),
    [
        (WHEEL, MODULE),
        (f"{PACKAGE}-2.0.0-cp39-cp39-win_amd64.whl", f"{PACKAGE}/_core.cp39-win_amd64.pyd"),
        (
            f"{PACKAGE}-2.0.0-cp314-cp314t-musllinux_1_2_x86_64.whl",
            f"{PACKAGE}/_core.cpython-314t-x86_64-linux-musl.so",
        ),
    ],
)
def test_a_good_wheel_has_no_fault(wheel, module):
    names = [module, f"{PACKAGE}/__init__.py", f"{PACKAGE}-2.0.0.dist-info/METADATA"]
    assert wheel_checks.faults_of_names(wheel, names) == []


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        ([], "it has 0 native modules instead of one: []"),
        ([MODULE.replace("311", "310")], "is not a module of cp311"),
        ([MODULE, "tests/conftest.py"], "tests/conftest.py does not belong into a wheel"),
        ([MODULE, f"{PACKAGE}/core.rs"], "core.rs was left behind"),
        ([MODULE, f"{PACKAGE}/other.so"], "it has 2 native modules instead of one"),
    ],
)
def test_a_file_that_should_not_be_there_is_a_fault(names, fault):
    assert any(fault in found for found in wheel_checks.faults_of_names(WHEEL, names))


@pytest.mark.parametrize(
    ("system", "good", "bad"),
    [
        ("manylinux_2_17_x86_64", ["libc.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"], "libpython3.11.so.1.0"),
        ("musllinux_1_2_x86_64", ["libc.so", "libc.musl-x86_64.so.1"], "libgcc_s.so.1"),
        ("win_amd64", ["python311.dll", "KERNEL32.dll", "api-ms-win-core-1.dll"], "libgcc_s_seh-1.dll"),
    ],
)
def test_a_library_that_some_machines_lack_is_a_fault(system, good, bad):
    wheel = f"{PACKAGE}-2.0.0-cp311-cp311-{system}.whl"
    assert wheel_checks.faults_of_libraries(wheel, [*good, bad]) == [f"it needs {bad}"]


def test_a_wheel_of_an_unknown_system_is_a_fault():
    (fault,) = wheel_checks.faults_of_libraries("package-2.0-cp311-cp311-macosx_11_0_arm64.whl", ["libc.so.6"])
    assert "none of manylinux, musllinux, win_amd64" in fault


def test_a_path_of_the_machine_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(wheel_checks, "needed", lambda module: [])
    wheel = tmp_path / f"{PACKAGE}-2.0.0-cp311-cp311-win_amd64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{PACKAGE}/_core.cp311-win_amd64.pyd", b"\0/home/me/src/lib.rs\0")
    assert wheel_checks.faults(wheel, "/home/me", "/home/you") == [
        f"{PACKAGE}/_core.cp311-win_amd64.pyd contains '/home/me'"
    ]


def test_auditwheel_confirms_one_of_the_names_of_a_platform():
    words = 'x.whl is consistent with the following platform tag: "manylinux_2_17_x86_64". The wheel references'
    named = f"{PACKAGE}-2.0.0-cp39-cp39-manylinux2014_x86_64.manylinux_2_17_x86_64.whl"
    assert wheel_checks.confirms(words, named)
    assert not wheel_checks.confirms(words, named.replace("manylinux_2_17", "manylinux_2_12"))
