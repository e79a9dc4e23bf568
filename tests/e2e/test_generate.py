"""``azmlinfsrv generate`` as people run it: what it writes and says, and what it never overwrites."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from harness import COMMAND, PATIENCE, TIED_TO_US

SCRIPT = """
def init():
    pass

def run(data):
    return {"length": len(data)}
"""


def environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(folder)}


def generate(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TIED_TO_US, *COMMAND, "generate", *options],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE,
    )


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "flowers"
    folder.mkdir()
    (folder / "score.py").write_text(SCRIPT)
    (folder / "a.json").write_text('{"data": [1]}')
    return folder


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_files_are_written_from_a_measurement_and_twice_the_same(app: Path) -> None:
    kinds = ("docker", "compose", "kubernetes", "systemd", "azureml", "kserve", "ray")
    options = ("--entry_script", "score.py", "--sample", "a.json", "--worker_count", "2", "--out", "deploy")
    done = generate(app, *kinds, *options)
    assert (done.returncode, done.stderr) == (0, "")
    made = files(app / "deploy")
    assert [f"Wrote deploy/{path}" in done.stdout for path in made] == [True] * len(made)
    assert "Measured: the script starts in" in done.stdout
    assert "with 1 sample." in done.stdout
    assert "docker build -t flowers:1 -f deploy/Dockerfile ." in done.stdout
    assert {"Dockerfile", "compose.yaml", "kubernetes/deployment.yaml", "flowers.service"} <= set(made)
    assert "MiB (measured)" in made["compose.yaml"]
    assert 'WORKER_COUNT: "2"' in made["compose.yaml"]
    again = generate(app, *kinds, *options)
    assert again.returncode == 0, again.stderr
    assert files(app / "deploy") == made


def test_a_file_that_differs_is_kept_without_force(app: Path) -> None:
    (app / "Dockerfile").write_text("FROM mine\n")
    options = ("docker", "--entry_script", "score.py", "--no_measure")
    refused = generate(app, *options)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "nothing is written, because Dockerfile would change." in refused.stderr
    assert (app / "Dockerfile").read_text() == "FROM mine\n"
    assert not (app / ".dockerignore").exists()
    forced = generate(app, *options, "--force")
    assert forced.returncode == 0, forced.stderr
    assert "FROM mine" not in (app / "Dockerfile").read_text()


def test_a_script_that_cannot_start_here_gets_files_all_the_same(app: Path) -> None:
    (app / "score.py").write_text('def init():\n    open("/no/such/model")\n\ndef run(data):\n    return 1\n')
    done = generate(app, "compose", "--entry_script", "score.py")
    assert done.returncode == 0, done.stderr
    assert "could not be started here, so its needs are guessed: " in done.stdout
    assert "/no/such/model" in done.stdout
    assert "(a guess: measure and change it)" in (app / "compose.yaml").read_text()


def test_files_that_cannot_be_read_or_written_are_told_in_a_line(app: Path) -> None:
    options = ("docker", "--entry_script", "score.py", "--no_measure")
    (app / "file").write_text("")
    refused = generate(app, *options, "--out", "file/deploy")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith("file/deploy cannot be a folder, because there is a file: name another with --out\n")
    # A loop of links cannot be read, also by root.
    (app / "Dockerfile").symlink_to("Dockerfile")
    refused = generate(app, *options)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("azmlinfsrv generate: error: ")
    assert "Traceback" not in refused.stderr


def test_all_is_said_at_once(app: Path) -> None:
    """`azmlinfsrv generate … | head -1` would otherwise end with a BrokenPipeError."""
    words = [*COMMAND, "generate", "docker", "kubernetes", "--entry_script", "score.py", "--no_measure"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=app, env=environment(app), stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        os.read(process.stdout.fileno(), 10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("dockr", "--entry_script", "score.py"), "invalid choice: 'dockr'"),
        (("docker",), "name the script with --entry_script"),
        (("docker", "--entry_script", "score.py", "--worker_count", "0"), "argument --worker_count: invalid"),
        (("docker", "--entry_script", "score.py", "--sample", "b.json"), "--sample b.json: there is no such file"),
        (("azureml", "--entry_script", "score.py", "--out", "../deploy"), "--out is not in "),
    ],
)
def test_wrong_usage_is_refused(app: Path, options: tuple[str, ...], fault: str) -> None:
    done = generate(app, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("azmlinfsrv generate: error: ")
    assert fault in done.stderr
    assert set(files(app)) == {"score.py", "a.json"}
