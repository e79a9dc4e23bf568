"""Builds the wheels and the source distribution that users install, checks each, and tries those that run here.

``python tools/build_wheels.py --out dist``: everything that ``SYSTEMS`` and ``RELEASES`` name, from one Linux machine.
``--system musllinux --release 3.11`` (each may be given several times) builds a part. The compiler for Linux is zig,
from the package registry, because it links against old versions of glibc; that for Windows is mingw. No interpreter of
a release is needed to build for it, because maturin knows their ABIs. An interpreter that ``pythons.py`` finds tries
its wheels, or one that ``--python PATH`` names, which may be a script that emulates another machine.
``--twice`` builds each wheel again, from a copy of the sources in another folder, and compares the bytes.

``wheel_checks.py`` owns what is wrong with a wheel. Exits with 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tools import pythons, wheel_checks

ROOT = Path(__file__).resolve().parent.parent
RELEASES = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.14t")
# The time of every file in an archive: that of the last commit would need git.
SOURCE_DATE_EPOCH = "1767225600"


class System(NamedTuple):
    """Where a wheel runs. ``target``: what Rust calls it. ``options``: of maturin. ``platform``: how the ABI of its
    Pythons ends (SOABI)."""

    target: str
    options: tuple[str, ...]
    platform: str


SYSTEMS = {
    "manylinux": System("x86_64-unknown-linux-gnu", ("--compatibility", "manylinux2014", "--zig"), "x86_64-linux-gnu"),
    "windows": System("x86_64-pc-windows-gnu", (), "win_amd64"),
    "musllinux": System(
        "x86_64-unknown-linux-musl", ("--compatibility", "musllinux_1_2", "--zig"), "x86_64-linux-musl"
    ),
    "manylinux-arm": System(
        "aarch64-unknown-linux-gnu", ("--compatibility", "manylinux2014", "--zig"), "aarch64-linux-gnu"
    ),
}


class Built(NamedTuple):
    """A file for users, and what was done with it."""

    path: Path
    tried: str


# ---- Building


def environment(sources: Path, target_folder: Path, target: str = "") -> dict[str, str]:
    """The environment of a build whose result does not depend on where and when it was made."""
    is_windows = target.endswith("windows-gnu")
    target_folder = before_usr(target_folder) if is_windows else target_folder
    # The last one that fits counts, and the target folder may be in the folder of the sources.
    renamed = {str(sources): "/source", cargo_home(): "/cargo", sysroot(): "/rust", str(target_folder): "/target"}
    flags = [f"--remap-path-prefix={folder}={name}" for folder, name in renamed.items()]
    if is_windows:
        # mingw's linker would write the time into the file.
        flags.append("-Clink-arg=-Wl,--no-insert-timestamp")
    return {
        **{name: value for name, value in os.environ.items() if name not in ("RUSTFLAGS", "VIRTUAL_ENV")},
        "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH,
        # Its package ziglang is the compiler, which maturin would look for in the first Python of PATH.
        "CARGO_ZIGBUILD_PYTHON_PATH": sys.executable,
        "CARGO_INCREMENTAL": "0",
        "CARGO_TARGET_DIR": str(target_folder),
        "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
    }


def sysroot() -> str:
    """The folder of the compiler."""
    return subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()


def before_usr(folder: Path) -> Path:
    """Another name of this folder. mingw's linker sorts the imported libraries by the paths of their files, its own
    below /usr among them, so cargo's must not be below /home in one build and below /work in another."""
    name = Path("/tmp", f"wheels-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}")
    folder.mkdir(parents=True, exist_ok=True)
    name.unlink(missing_ok=True)
    name.symlink_to(folder)
    return name


def cargo_home() -> str:
    """The folder with the sources of other crates."""
    return os.environ.get("CARGO_HOME", str(Path.home() / ".cargo"))


def build(system: System, release: str, profile: str, sources: Path, target_folder: Path, out: Path) -> Path:
    """Build one wheel. Returns its path. It takes the place of a wheel of the same name."""
    with tempfile.TemporaryDirectory() as folder:
        maturin(
            ["build", "--profile", profile, "--locked", "--target", system.target, "--interpreter", f"python{release}"]
            + [*system.options, "--out", folder, "--manifest-path", str(sources / "Cargo.toml")],
            environment(sources, target_folder, system.target),
        )
        return moved(folder, out)


def moved(folder: str, out: Path) -> Path:
    """Move the only file of a folder to ``out``. Returns its new path."""
    (made,) = Path(folder).iterdir()
    out.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(made, out / made.name))


def maturin(arguments: list[str], variables: dict[str, str]) -> None:
    """Run maturin of this environment."""
    subprocess.run([sys.executable, "-m", "maturin", *arguments], env=variables, check=True)


def build_source_distribution(out: Path) -> Path:
    """Make the sdist. Returns its path."""
    with tempfile.TemporaryDirectory() as folder:
        maturin(["sdist", "--out", folder], environment(ROOT, ROOT / "target"))
        return moved(folder, out)


def unpacked(sdist: Path, folder: Path) -> Path:
    """The sources of an sdist: what somebody without git builds from."""
    shutil.unpack_archive(sdist, folder)
    (sources,) = folder.iterdir()
    return sources


def has_library(target: str) -> bool:
    """Whether Rust's standard library for this target is installed."""
    command = ["rustc", "--print", "target-libdir", "--target", target]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()).is_dir()


# ---- Trying


def try_it(wheel: Path, release: str, system: System, more: list[str]) -> str:
    """Install the wheel into an empty environment and serve with it, if it runs here. Returns what was done."""
    if "windows" in system.target:
        return "not tried here: see make test-windows"
    python = pythons.find(release, system.platform, more)
    if python is None:
        return f"not tried: no CPython {release} for {system.platform} was found"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
        own = str(Path(folder, "bin", "python"))
        # pip would need an interpreter with TLS, and would take minutes with an emulated one.
        uv = [sys.executable, "-m", "uv", "pip"]
        subprocess.run([*uv, "install", "--quiet", "--python", own, str(wheel)], check=True)
        subprocess.run([*uv, "check", "--python", own], check=True)
        for worker_class in ("process", "thread"):
            subprocess.run([own, str(ROOT / "tools/try_wheel.py"), "--worker_class", worker_class], check=True)
    return f"served with processes and threads ({pythons.abi(python)})"


# ---- Everything


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="FOLDER")
    parser.add_argument("--system", action="append", choices=SYSTEMS, help="only this one")
    parser.add_argument("--release", action="append", choices=RELEASES, help="only this one")
    parser.add_argument("--python", action="append", default=[], metavar="PATH", help="tries its wheels too")
    parser.add_argument("--profile", default="release", help="of cargo: dev is quick to build, and not for users")
    parser.add_argument("--keep", action="store_true", help="keep what cargo has built: about 1 GB for each system")
    parser.add_argument("--twice", action="store_true", help="build each wheel again elsewhere, and compare")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    chosen = options(arguments)
    out: Path = chosen.out.resolve()
    if not (chosen.system or chosen.release):
        for old in (*out.glob("*.whl"), *out.glob("*.tar.gz")):
            old.unlink()
    sdist = build_source_distribution(out)
    built, wrong, missing = [Built(sdist, "wheels are built from it" if chosen.twice else "")], [], []
    for name in chosen.system or SYSTEMS:
        system = SYSTEMS[name]
        if not has_library(system.target):
            missing.append(f"{name}: Rust's standard library is not installed: rustup target add {system.target}")
            continue
        for release in chosen.release or RELEASES:
            try:
                wheel = build(system, release, chosen.profile, ROOT, ROOT / "target", out)
            except Exception as error:
                wrong.append(f"{name} {release}: {failure(error)}")
                continue
            found = faults_by(wheel_checks.faults, wheel, str(ROOT), cargo_home(), "/tmp/wheels-")
            try:
                tried = try_it(wheel, release, system, chosen.python)
            except Exception as error:
                tried = "FAILED, see below"
                found.append(failure(error))
            if chosen.twice:
                others = faults_by(differences, wheel, system, release, chosen.profile, sdist)
                tried += "; built again from the sdist" + (": FAILED, see below" if others else "")
                found += others
            built.append(Built(wheel, tried))
            wrong += [f"{wheel.name}: {fault}" for fault in found]
            print(f"Built: {wheel.name}: {tried}", *found, sep="\n", flush=True)
        if not chosen.keep:
            for folder in (ROOT / "target", ROOT / "target" / "again"):
                shutil.rmtree(folder / system.target, ignore_errors=True)
    print("\n" + table(built))
    for line in missing:
        print(f"Left out: {line}")
    for line in wrong:
        print(f"WRONG: {line}")
    return 1 if wrong else 0


def faults_by(check: Callable[..., list[str]], *arguments: object) -> list[str]:
    """What a check finds wrong with a wheel. A check that fails is a fault too, and stops no other one."""
    try:
        return check(*arguments)
    except Exception as error:
        return [failure(error)]


def differences(wheel: Path, system: System, release: str, profile: str, sdist: Path) -> list[str]:
    """What is wrong with a second build, from the sdist in another folder, without git."""
    with tempfile.TemporaryDirectory() as folder:
        sources = unpacked(sdist, Path(folder, "sources"))
        again = build(system, release, profile, sources, ROOT / "target" / "again", Path(folder, "wheel"))
        return [] if digest(again) == digest(wheel) else ["a second build has other bytes"]


def failure(error: Exception) -> str:
    """Why a wheel could not be built, checked or tried, in one line. The traceback goes to standard error."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"{' '.join(map(str, error.cmd))} ended with code {error.returncode}"
    traceback.print_exception(type(error), error, error.__traceback__)
    return f"{type(error).__name__}: {error}"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def table(built: list[Built]) -> str:
    """The files with their sizes, as a table of Markdown."""
    rows = [f"| `{path.name}` | {path.stat().st_size / 2**20:.1f} MiB | {tried} |" for path, tried in built]
    return "\n".join(["| file | size | tried |", "| --- | --- | --- |", *rows])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
