"""Makes a CPython for musl from Debian's source packages, to try wheels of musllinux with.

``python tools/musl_python.py FOLDER``: compiles CPython 3.13 and the library zlib into FOLDER with musl's C library,
and prints the path of the interpreter; nothing is installed. Does nothing if FOLDER has it. The interpreter has no
``ssl``, so pip fetches nothing with it, and uv does.

Needs apt-get, make and musl-gcc (Debian: musl-tools). Exits with 1 and a line that says what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tools import debian_python
from tools.debian_python import Missing

RELEASE = "3.13"
# How its ABI ends.
PLATFORM = "x86_64-linux-musl"
# The source packages, and the suites of Debian that have them. Debian's mirrors keep those of stable suites longest.
PACKAGES = {f"python{RELEASE}": "trixie", "zlib": "bookworm"}
COMPILER = "musl-gcc"


def make(folder: Path) -> Path:
    """Make the Python in ``folder``. Returns the path of the interpreter. Raises Missing."""
    for tool in ("apt-get", "make", COMPILER):
        if not shutil.which(tool):
            raise Missing(f"{tool} was not found" + (": apt-get install musl-tools" if tool == COMPILER else "."))
    python = folder / "bin" / f"python{RELEASE}"
    if python.exists():
        return python
    with tempfile.TemporaryDirectory() as temporary:
        sources, zlib = (_unpacked(Path(temporary, package), package, suite) for package, suite in PACKAGES.items())
        _compile_zlib(zlib)
        _compile_python(sources, zlib, folder)
        _install(sources, folder)
    return python


def _unpacked(folder: Path, package: str, suite: str) -> Path:
    """The sources of a package, without Debian's changes."""
    debian_python.download_source(folder / "packages", package, suite)
    files = (folder / "packages" / "files").glob("*.orig.tar.*")
    (archive,) = (file for file in files if file.suffix != ".asc")
    shutil.unpack_archive(archive, folder / "sources")
    (sources,) = (folder / "sources").iterdir()
    return sources


def _compile_zlib(sources: Path) -> None:
    _run(["./configure", "--static"], sources, CC=COMPILER, CFLAGS="-O2 -fPIC")
    _run(["make", "libz.a"], sources)


def _compile_python(sources: Path, zlib: Path, folder: Path) -> None:
    prefix = ["--prefix", str(folder), "--build", PLATFORM]
    less = ["--without-ensurepip", "--disable-test-modules"]
    # It answers the question for Debian's name of the system with that of glibc's, and Python's build believes it.
    compiler = sources / "compiler"
    compiler.write_text(f'#!/bin/sh\ntest "$1" = --print-multiarch || exec {COMPILER} "$@"\n')
    compiler.chmod(0o755)
    # pkg-config knows the libraries of this machine, which are for glibc: it gets a folder without any.
    libraries = {"ZLIB_CFLAGS": f"-I{zlib}", "ZLIB_LIBS": f"-L{zlib} -lz", "PKG_CONFIG_LIBDIR": str(zlib)}
    # musl gives a thread 128 KiB, which Python's recursion needs more than. Builds for Alpine set the same.
    options = {"OPT": "-O1", "LDFLAGS": "-Wl,-z,stack-size=0x100000"}
    _run(["./configure", *prefix, *less], sources, CC=str(compiler), **options, **libraries)
    _run(["make", f"-j{os.cpu_count()}"], sources)


def _install(sources: Path, folder: Path) -> None:
    """Install what has been compiled. The folder gets its name when everything is in it, so that half a Python is never
    found there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        # Without compiled files of the library, which Python makes when it needs them.
        _run(["make", "altinstall", "COMPILEALL_OPTS=-x .", f"DESTDIR={temporary}"], sources)
        Path(temporary, folder.relative_to(folder.anchor)).rename(folder)


def _run(command: list[str], folder: Path, **variables: str) -> None:
    """Run a step of a build. Raises Missing with the end of what it said if it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Missing(f"CPython {RELEASE} for musl was not built: {' '.join(command)}:\n{done.stdout[-2000:]}")


if __name__ == "__main__":
    sys.exit(debian_python.tell(lambda: make(Path(sys.argv[1]).resolve())))
