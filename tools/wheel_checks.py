"""What is wrong with a wheel: which of its facts would break an installation, or tell about the machine that built it.

Used by ``build_wheels.py``. Needs objdump, and auditwheel for wheels of manylinux.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

# Libraries that a module may ask for, because every machine has them, by a word in the wheel's name.
LIBRARIES = {
    "manylinux": re.compile(r"(lib(c|m|pthread|dl|rt|util|gcc_s)|ld-linux-(x86-64|aarch64))\.so(\.\d+)?"),
    # musl's only library, under two names: that of Alpine, and that by which zig asks for it, which musl's loader takes
    # for itself everywhere. auditwheel knows the first only, and could find nothing else wrong, because musl has no
    # versions of symbols.
    "musllinux": re.compile(r"libc\.so|libc\.musl-x86_64\.so\.1"),
    "win_amd64": re.compile(
        r"(api-ms-win-.*|advapi32|bcrypt|bcryptprimitives|crypt32|kernel32|msvcrt|ncrypt|ntdll|secur32|ucrtbase|userenv"
        r"|ws2_32|python3\d+t?)\.dll",
        re.IGNORECASE,
    ),
}
PACKAGE = "azureml_inference_server_http/"
# Files that a build or an editor leaves behind.
STRAY = (".rs", ".pyc", ".orig", ".rej", ".swp", "~")


def faults(wheel: Path, *private: str) -> list[str]:
    """Everything that is wrong with this wheel. ``private``: texts that must not be in it, such as paths."""
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        found = faults_of_names(wheel.name, archive.namelist())
        for name in archive.namelist():
            content = archive.read(name)
            found += [f"{name} contains {text!r}" for text in private if text.encode() in content]
        modules = [name for name in archive.namelist() if name.endswith((".so", ".pyd"))]
        for name in modules:
            found += faults_of_libraries(wheel.name, needed(Path(archive.extract(name, folder))))
    if "manylinux" in wheel.name:
        found += faults_of_manylinux(wheel)
    return found


def faults_of_names(wheel: str, names: list[str]) -> list[str]:
    """What is wrong with the names of the files in a wheel."""
    found = []
    modules = [name for name in names if name.endswith((".so", ".pyd"))]
    if len(modules) != 1:
        found.append(f"it has {len(modules)} native modules instead of one: {modules}")
    abi = wheel.split("-")[3]
    number = abi.replace("cp", "")
    for name in modules:
        if not re.search(rf"\.(cpython-|cp){number}-", name):
            found.append(f"{name} is not a module of {abi}")
    for name in names:
        if not name.startswith(PACKAGE) and ".dist-info/" not in name:
            found.append(f"{name} does not belong into a wheel")
        elif name.endswith(STRAY):
            found.append(f"{name} was left behind by a build or an editor")
    return found


def needed(module: Path) -> list[str]:
    """The libraries that a native module asks for."""
    listed = subprocess.run(["objdump", "-p", str(module)], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^\s*(?:NEEDED|DLL Name:)\s+(\S+)", listed, re.MULTILINE)


def faults_of_libraries(wheel: str, names: list[str]) -> list[str]:
    """Libraries that not every machine of the wheel's system has."""
    known = next((pattern for system, pattern in LIBRARIES.items() if system in wheel), None)
    if known is None:
        return [f"its name has none of {', '.join(LIBRARIES)}, so which libraries it may need is not known"]
    return [f"it needs {name}" for name in names if not known.fullmatch(name)]


def faults_of_manylinux(wheel: Path) -> list[str]:
    """What auditwheel says: a wheel must run on every system that its name promises."""
    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", str(wheel)], capture_output=True, text=True, check=False
    )
    words = " ".join(shown.stdout.split())
    if shown.returncode or not confirms(words, wheel.name):
        return [f"auditwheel does not confirm the name: {words}{shown.stderr}"]
    return []


def confirms(words: str, wheel: str) -> bool:
    """Whether auditwheel names a platform of the wheel, which may have two: an old name and the one since PEP 600."""
    platforms = wheel[: -len(".whl")].split("-")[-1].split(".")
    return any(f'platform tag: "{platform}"' in words for platform in platforms)
