"""Runs ``azmlinfsrv validate`` as a command, for the tests of several files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from harness import COMMAND, PATIENCE, TIED_TO_US


class Result(NamedTuple):
    """How the command ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    def found(self) -> list[tuple[str, int | None]]:
        """Name and line of each finding."""
        return [(found["name"], found["line"]) for found in self.document["findings"]]


def environment(folder: Path, **added: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **added}


def validate(folder: Path, *options: str | Path, command: str = "validate", **added: str) -> Result:
    """Run the command in ``folder`` to its end."""
    words = [*TIED_TO_US, *COMMAND, command, *map(str, options)]
    done = subprocess.run(
        words, cwd=folder, env=environment(folder, **added), capture_output=True, timeout=3 * PATIENCE
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def script(folder: Path, text: str) -> Path:
    path = folder / "score.py"
    path.write_text(text)
    return path


def sample(folder: Path, name: str = "sample.json", value: object = None) -> Path:
    path = folder / name
    path.write_text(json.dumps({"data": [[1, 2]]} if value is None else value))
    return path
