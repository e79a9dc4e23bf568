"""Makes a Python for another processor or of another release from Debian's packages, to try wheels with.

``python tools/debian_python.py FOLDER 3.11 --architecture arm64``: unpacks Debian's CPython 3.11 and the libraries that
it needs into FOLDER, and prints the path of a script that runs it; nothing is installed. The script emulates the
processor (qemu-user) if it is another one, and starts the Python with the C library of its own packages.
``--suite sid`` takes a newer Debian. Does nothing if FOLDER has it.

Needs apt-get and dpkg-deb, and for another processor qemu-user-static. Exits with 1 and a line that says what is
missing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
# By Debian's name of the processor: its emulator, the folder of its libraries, and its dynamic loader.
PROCESSORS = {
    "amd64": ("", "x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2"),
    "arm64": ("qemu-aarch64-static", "aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1"),
}
# Their files are not needed to run it.
NOT_NEEDED = ("debconf", "dpkg", "tar", "openssl", "ca-certificates", "python3-distutils", "python3-lib2to3")


class Missing(Exception):
    """Something that this machine does not have. The text says what, and how to get it."""


def make(folder: Path, release: str, architecture: str, suite: str) -> Path:
    """Make the Python in ``folder``. Returns the path of the script that runs it. Raises Missing."""
    emulator, libraries, loader = PROCESSORS[architecture]
    for tool in filter(None, ("apt-get", "dpkg-deb", emulator)):
        if not shutil.which(tool):
            raise Missing(f"{tool} was not found" + (": apt-get install qemu-user-static" if tool == emulator else "."))
    script = folder / "usr" / "bin" / "python"
    if script.exists():
        return script
    shutil.rmtree(folder, ignore_errors=True)
    for package in _download(folder / "packages", release, architecture, suite):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    shutil.rmtree(folder / "packages")
    for name in ("lib", "lib64"):
        # Newer packages have everything below usr/, and expect these links.
        if not (folder / name).exists() and (folder / "usr" / name).exists():
            (folder / name).symlink_to(f"usr/{name}")
    program = f'"{folder}/usr/bin/python{release}" "$@"'
    if emulator:
        command = f'{emulator} -0 "$0" -L "{folder}" {program}'
    else:
        path = f"{folder}/lib/{libraries}:{folder}/usr/lib/{libraries}"
        command = f'"{folder}/{loader}" --argv0 "$0" --library-path "{path}" {program}'
    script.write_text(f"#!/bin/sh\nexec {command}\n")
    script.chmod(0o755)
    return script


def _download(folder: Path, release: str, architecture: str, suite: str) -> list[Path]:
    """Fetch the packages of this Python."""
    line = f"deb [arch={architecture} signed-by={KEYS}] {_mirror()} {suite} main"
    settings = {"APT::Architecture": architecture, "APT::Architectures": architecture}
    try:
        apt = _apt(folder, line, settings)
        wanted = ["--no-install-recommends", "--simulate", "install", f"python{release}-venv"]
        plan = subprocess.run([*apt, *wanted], check=True, capture_output=True, text=True).stdout
        names = [name for name in re.findall(r"^Inst (\S+)", plan, re.MULTILINE) if name not in NOT_NEEDED]
        subprocess.run([*apt, "download", *names], check=True, capture_output=True, cwd=folder / "files")
    except subprocess.CalledProcessError as error:
        raise Missing(
            f"Debian's packages of CPython {release} for {architecture} were not found: {_said(error)}"
        ) from None
    return sorted((folder / "files").glob("*.deb"))


def download_source(folder: Path, package: str, suite: str) -> None:
    """Fetch the files of a source package into ``folder / "files"``. Raises Missing."""
    try:
        apt = _apt(folder, f"deb-src [signed-by={KEYS}] {_mirror()} {suite} main", {})
        fetch = ["source", "--download-only", "--only-source", package]
        subprocess.run([*apt, *fetch], check=True, capture_output=True, cwd=folder / "files")
    except subprocess.CalledProcessError as error:
        raise Missing(f"Debian's source package {package} of {suite} was not found: {_said(error)}") from None


def _apt(folder: Path, line: str, more: dict[str, str]) -> list[str]:
    """apt-get for one source of packages, with its lists up to date. It gets a state of its own in ``folder``, so that
    this machine's stays as it is."""
    for name in ("lists/partial", "cache/archives/partial", "files"):
        (folder / name).mkdir(parents=True)
    sources = folder / "sources.list"
    sources.write_text(f"{line}\n")
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
        **more,
    }
    apt = ["apt-get", "-q", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]
    subprocess.run([*apt, "update"], check=True, capture_output=True)
    return apt


def _said(error: subprocess.CalledProcessError) -> str:
    """What the failed command wrote to standard error."""
    return error.stderr if isinstance(error.stderr, str) else error.stderr.decode("utf-8", "replace")


def _mirror() -> str:
    """Where this machine gets Debian's packages from."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True, check=False
    )
    found = re.search(r"^\S+/debian/?$", listed.stdout, re.MULTILINE)
    if not found or not Path(KEYS).exists():
        raise Missing("apt-get does not use Debian's packages here.")
    return found[0]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("release")
    parser.add_argument("--architecture", choices=PROCESSORS, default="amd64")
    parser.add_argument("--suite", default="stable")
    chosen = parser.parse_args(arguments)
    return tell(lambda: make(chosen.folder.resolve(), chosen.release, chosen.architecture, chosen.suite))


def tell(make: Callable[[], Path]) -> int:
    """Print the path that ``make`` returns, or what it misses. Returns the exit code of the command."""
    try:
        print(make())
    except Missing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
