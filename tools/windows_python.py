"""Makes a Windows Python that runs under Wine, for ``make test-windows``, and runs programs with it.

``python tools/windows_python.py FOLDER`` makes it in FOLDER, or does nothing if it is there. It is of the same release
as the Python that runs this file, and made from parts that a package registry has: the libraries and extension modules
of CPython's own build for Windows, which the package panda3d carries; the standard library of this Python; and a
``python.exe`` of three lines (``windows/python.c``). ``python tools/windows_python.py FOLDER PROGRAM ARGUMENTS`` runs a
program of FOLDER, with pipes for standard streams.

Exits with 1 and a line that says what is missing and how to get it.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "windows"
RELEASE = f"{sys.version_info[0]}.{sys.version_info[1]}"
# Has the files of CPython's installer for Windows in deploy_libs/, for each release.
CARRIER = "panda3d>=1.10.15"
COMPILER = "x86_64-w64-mingw32-gcc"
IMPORTER = "x86_64-w64-mingw32-dlltool"
# Debian has the first outside PATH.
WINES = ("/usr/lib/wine/wine64", "wine64", "wine")
# What the server, the tests' scripts and the tests need there. Newer numpy calls a function that Wine 8 does not have.
PACKAGES = (
    "flask",
    "inference-schema",
    "numpy<2",
    "pandas<3",
    "pillow",
    "pip",
    "pytest",
    "pytest-timeout",
    "hypothesis",
    "opentelemetry-sdk",
    "sentry-sdk",
)


class Missing(Exception):
    """Something that this machine does not have. The text says what, and how to get it."""


def wine() -> str:
    """The program that runs programs of Windows."""
    found = next((path for name in WINES if (path := shutil.which(name))), None)
    if found is None:
        raise Missing("Wine was not found: apt-get install wine64")
    return found


def environment(folder: Path) -> dict[str, str]:
    """The environment for a program under Wine: this process's, which Wine passes on, and what Wine needs.

    WINEPATH is where a program outside ``folder``, such as that of the Rust unit tests, finds bcryptprimitives.dll.
    """
    own = {"WINEPREFIX": str(folder / "prefix"), "WINEPATH": windows_path(str(folder / "python"))}
    return {"WINEDEBUG": "-all", "PYTHONUTF8": "0", **os.environ, **own}


def command(folder: Path, *programs: str) -> list[str]:
    """The command that runs programs of ``folder`` under Wine; each starts the next one."""
    return [wine(), *(str(folder / "python" / program) for program in programs)]


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[None]:
    """Keep a program of ``folder`` running, and so Wine's own programs. Then no other program waits 2 seconds for their
    start, and none hands its pipes on to them. All end when this ends, or this process."""
    pipe = subprocess.PIPE
    keeper = [*command(folder, "python.exe"), "-c", "import sys; print(flush=True); sys.stdin.read()"]
    # Its end is not waited for by reading, because Wine's programs have the pipe too.
    child = subprocess.Popen(
        keeper, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=environment(folder), bufsize=0
    )
    assert child.stdin
    assert child.stdout
    child.stdout.readline()
    try:
        yield
    finally:
        child.stdin.close()
        child.wait()
        child.stdout.close()


def windows_path(path: str) -> str:
    """What an absolute path of this system is called under Wine."""
    return "Z:" + path.replace("/", "\\")


def run(folder: Path, *arguments: str) -> int:
    """Run a program of ``folder``. Returns its exit code."""
    feeder, writer = os.pipe()
    with subprocess.Popen(
        command(folder, *arguments[:1]) + list(arguments[1:]),
        stdin=feeder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(folder),
    ) as child:
        os.close(feeder)
        assert child.stdout
        # Not readline(): the program's text must be seen as it comes.
        while piece := os.read(child.stdout.fileno(), 65536):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        code = child.wait()
    os.close(writer)
    return code


# ---- Making it


def make(folder: Path) -> None:
    """Make the Python in ``folder``. Raises Missing."""
    done = folder / f"done-{RELEASE}"
    made_of = "\n".join((CARRIER, *PACKAGES, *(file.read_text() for file in sorted(SOURCES.iterdir()))))
    if done.exists() and done.read_text() == made_of:
        return
    runner = wine()
    for tool in (COMPILER, IMPORTER):
        if not shutil.which(tool):
            raise Missing(f"{tool} was not found: apt-get install gcc-mingw-w64-x86-64")
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "python"
    python.mkdir(parents=True)
    _unpack_libraries(python)
    _compile(python)
    _copy_library(python)
    _make_prefix(folder, runner)
    _install_packages(python)
    compileall.compile_dir(python / "Lib", quiet=2, workers=0)
    done.write_text(made_of)


def _unpack_libraries(python: Path) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        _pip("download", "--no-deps", *_for_windows(), "--dest", downloads, CARRIER)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                name = member.rpartition("/")[2]
                # Wine has the C library itself. The free-threaded modules do not load into this interpreter.
                is_wanted = (
                    name.endswith((".dll", ".pyd")) and not name.startswith("api-ms-") and "t-win_amd64" not in name
                )
                if member.startswith("deploy_libs/") and is_wanted:
                    (python / name).write_bytes(archive.read(member))
    if not (python / f"python{RELEASE.replace('.', '')}.dll").exists():
        raise Missing(f"{CARRIER} has no CPython {RELEASE} for Windows: choose another release with make PYTHON=...")


def _compile(python: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        definition, library = Path(temporary, "python.def"), Path(temporary, "python.a")
        definition.write_text(f"LIBRARY python{RELEASE.replace('.', '')}.dll\nEXPORTS\nPy_Main\n")
        subprocess.run([IMPORTER, "-d", str(definition), "-l", str(library)], check=True)
        options = [COMPILER, "-O2", "-Wall", "-s"]
        out = str(python / "python.exe")
        subprocess.run([*options, "-municode", str(SOURCES / "python.c"), "-o", out, str(library)], check=True)
        subprocess.run([*options, "-municode", str(SOURCES / "run.c"), "-o", str(python / "run.exe")], check=True)
        out = str(python / "bcryptprimitives.dll")
        subprocess.run([*options, "-shared", str(SOURCES / "random.c"), "-o", out, "-ladvapi32"], check=True)


def _copy_library(python: Path) -> None:
    left_out = shutil.ignore_patterns(
        "site-packages", "dist-packages", "lib-dynload", "config-*", "__pycache__", "test", "tests"
    )
    shutil.copytree(sysconfig.get_path("stdlib"), python / "Lib", ignore=left_out)
    (python / "Lib" / "site-packages").mkdir(exist_ok=True)
    shutil.copy(SOURCES / "sitecustomize.py", python / "Lib" / "site-packages")


def _make_prefix(folder: Path, runner: str) -> None:
    for arguments in (["wineboot", "-i"], ["winecfg", "-v", "win10"]):
        made = subprocess.run(
            [runner, *arguments], env=environment(folder), stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if made.returncode:
            raise Missing(f"{runner} {' '.join(arguments)} failed: {made.stderr.decode('utf-8', 'replace')}")


def _install_packages(python: Path) -> None:
    _pip("install", *_for_windows(), "--target", str(python / "Lib" / "site-packages"), *PACKAGES)


def _for_windows() -> list[str]:
    return ["--platform", "win_amd64", "--python-version", RELEASE, "--implementation", "cp", "--only-binary", ":all:"]


def _pip(what: str, *arguments: str) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-warn-conflicts"] if what == "install" else ["--quiet"]
    try:
        subprocess.run([sys.executable, "-m", "pip", what, *options, *arguments], check=True)
    except subprocess.CalledProcessError:
        raise Missing(f"pip {what} failed, see above: the package registry has to be reachable") from None


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]).resolve()
    try:
        make(folder)
        return run(folder, *arguments[1:]) if len(arguments) > 1 else 0
    except Missing as error:
        print(f"make test-windows cannot run here. {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
