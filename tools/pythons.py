"""Finds CPythons of other releases and for other machines: in PATH, of pyenv, or made from packages.

``python tools/pythons.py 3.14t`` prints the path of one that runs on this machine, and that pip can install with;
``none``, with exit code 1, if there is none. Used by ``make test-all`` and ``build_wheels.py``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from tools import debian_python, free_threaded_python, musl_python

ROOT = Path(__file__).resolve().parent.parent
# Where Pythons that are made from packages are kept. `make clean` removes them.
FOLDER = ROOT / ".venv-debian"
# The suite of Debian that has a release.
SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "sid"}
# Debian's name of the processor, by the end of the ABI's name.
ARCHITECTURES = {"x86_64-linux-gnu": "amd64", "aarch64-linux-gnu": "arm64"}


def abi(python: str) -> str:
    """What this interpreter loads, such as ``cpython-314t-x86_64-linux-gnu``; an empty text if it does not run."""
    ask = "import sysconfig; print(sysconfig.get_config_var('SOABI'))"
    try:
        return subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def find(
    release: str, platform: str = "x86_64-linux-gnu", more: Sequence[str] = (), *, for_pip: bool = False
) -> str | None:
    """The path of a Python of this release for this platform: one of ``more``, of this machine, or made from packages.
    ``for_pip``: only one with TLS, which pip needs."""
    wanted = f"cpython-{release.replace('.', '')}-{platform}"
    return next((path for path in _candidates(release, platform, more, for_pip) if abi(path) == wanted), None)


def _candidates(release: str, platform: str, more: Sequence[str], for_pip: bool) -> Iterator[str]:
    yield from more
    yield from filter(None, [shutil.which(f"python{release}")])
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(root.glob(f"versions/{release.rstrip('t')}.*/bin/python")))
    folder = FOLDER / f"{release}-{platform}"
    try:
        if release in SUITES and platform in ARCHITECTURES:
            yield str(debian_python.make(folder, release, ARCHITECTURES[platform], SUITES[release]))
        for maker in () if for_pip else (musl_python, free_threaded_python):
            if (release, platform) == (maker.RELEASE, maker.PLATFORM):
                yield str(maker.make(folder))
    except debian_python.Missing as error:
        print(error, file=sys.stderr)
    except Exception as error:
        # Such as a compiler that fails, or a package with other files than before.
        traceback.print_exception(type(error), error, error.__traceback__)
        print(f"{folder.name}: this Python could not be made: {error}", file=sys.stderr)


if __name__ == "__main__":
    found = find(sys.argv[1], for_pip=True)
    print(found or "none")
    sys.exit(0 if found else 1)
