"""Installs the wheel as users do, in environments of its own, and serves with it each time: ``make test-install``.

``python tools/try_install.py WHEEL`` with the Python that the wheel is for. Beside an installed 1.5.1: up, down and up
again, with pip's own check each time. In empty environments: by uv, with the oldest and with the newest packages that
it may have, and without its dependencies. Needs uv in this environment, and the package registry. Exits with 1 at the
first thing that is wrong.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = "azureml-inference-server-http==1.5.1"
# What a script that needs Flask is told where there is none.
NO_FLASK = (
    "The script needs the package flask, which azureml-inference-server-http requires, and which is not installed. "
)


class Environment:
    """A virtual environment in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        run(sys.executable, "-m", "venv", "--without-pip", str(folder))
        self.python = str(folder / "bin" / "python")

    def pip(self, *arguments: str) -> str:
        return run(sys.executable, "-m", "pip", "--python", self.python, *arguments)

    def uv(self, *arguments: str) -> str:
        return run(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", self.python, *arguments)

    def install(self, *what: str) -> None:
        """Install with pip, and let it check what is installed then."""
        self.pip("install", "--quiet", *what)
        say(f"  {self.pip('check').strip()}")

    def serve(self, *options: str) -> None:
        """Serve the quickstart example, ask once, and stop. 1.5.1 cannot choose a port by itself."""
        options = ("--port", str(free_port()), *options)
        lines = run(self.python, str(ROOT / "tools" / "try_wheel.py"), *options).splitlines()
        say(f"  {', '.join(line for line in lines if line.startswith(('answered', 'ended')))}")

    def versions(self) -> str:
        """The versions that count here."""
        names = ("azureml-inference-server-http", "flask", "werkzeug", "inference-schema")
        listed = (line.partition("==") for line in self.pip("list", "--format=freeze").splitlines())
        found = {name.lower().replace("_", "-"): version for name, _, version in listed}
        return ", ".join(f"{name} {found[name]}" for name in names if name in found)


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*command: str) -> str:
    """Run a command. Returns its standard output, or shows all of its output and fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def say(text: str) -> None:
    print(text, flush=True)


def over_the_published_server(folder: Path, wheel: str) -> None:
    """Up, down and up again."""
    environment = Environment(folder)
    environment.pip("install", "--quiet", PUBLISHED)
    count = len(environment.pip("freeze").splitlines())
    for what in (wheel, PUBLISHED, wheel):
        environment.install(what)
        say(f"  {environment.versions()}, over {count} packages")
        environment.serve()
    environment.serve("--worker_class", "thread")


def with_other_versions(folder: Path, wheel: str, resolution: str) -> None:
    """With uv, and the oldest or newest packages that it may have."""
    environment = Environment(folder)
    environment.uv("--resolution", resolution, "--only-binary", ":all:", wheel)
    say(f"  {environment.versions()}")
    environment.serve()


def without_dependencies(folder: Path, wheel: str) -> None:
    """A plain script is served without Flask; one that needs Flask is told so in one line."""
    environment = Environment(folder)
    environment.pip("install", "--quiet", "--no-deps", wheel)
    environment.serve()
    script = folder / "raw.py"
    script.write_text(
        "from azureml_inference_server_http.api.aml_request import rawhttp\n"
        "def init(): pass\n@rawhttp\ndef run(request): return 'x'\n"
    )
    command = [environment.python, "-m", "azureml_inference_server_http", "--entry_script", str(script), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = [line for line in done.stdout.splitlines() if NO_FLASK in line]
    if done.returncode != 3 or len(lines) != 1:
        sys.exit(f"ended with code {done.returncode}\n{done.stdout}{done.stderr}")
    say(f"  {lines[0]}")


def main(wheel: str) -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        say("Over the published server, down to it, and up again:")
        over_the_published_server(folder / "published", wheel)
        for resolution in ("highest", "lowest"):
            say(f"With uv, and the {resolution} versions:")
            with_other_versions(folder / resolution, wheel, resolution)
        say("Without its dependencies:")
        without_dependencies(folder / "bare", wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main(str(Path(sys.argv[1]).resolve())))
