"""The pipelines of docs/validate.md, step by step, and the outputs that the page shows.

Each line that a pipeline would run is run as it stands, in a shell, except the installation: the package that is tested
is installed already, and tests use no network. The steps that belong to the service (checkout, Python, publishing) are
checked for the files that they name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from harness import PATIENCE, Start

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "validate.md"
INSTALLATION = "pip install azureml-inference-server-http -r requirements.txt"


def pipelines() -> dict[str, Any]:
    """The pipelines of the page, by the service."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    # YAML 1.1, which this reader knows, takes the key ``on`` for true.
    github, azure, gitlab = map(yaml.safe_load, blocks)
    return {"github": github, "azure": azure, "gitlab": gitlab}


def commands(service: str) -> list[str]:
    """What the service would pass to a shell."""
    pipeline = pipelines()[service]
    if service == "github":
        return [step["run"] for step in pipeline["jobs"]["validate"]["steps"] if "run" in step]
    if service == "azure":
        return [step["script"] for step in pipeline["steps"] if "script" in step]
    return list(pipeline["validate"]["script"])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What the page expects in a repository."""
    shutil.copy(ROOT / "examples" / "quickstart" / "score.py", tmp_path)
    (tmp_path / "requirements.txt").write_text("numpy\n")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "rows.json").write_text('{"data": [[1, 2]]}')
    (tmp_path / "samples" / "rows.response.json").write_text('{"scores": [4.5]}')
    return tmp_path


def run(service: str, repository: Path) -> Iterator[subprocess.CompletedProcess[str]]:
    """Each step of the pipeline but the installation, up to the first that fails."""
    installation, *others = commands(service)
    assert installation == INSTALLATION
    assert others
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
    for command in others:
        done = subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            timeout=3 * PATIENCE,
        )
        yield done
        if done.returncode:
            return


@pytest.mark.parametrize("service", ["github", "azure", "gitlab"])
def test_a_valid_script_passes(service: str, repository: Path):
    for done in run(service, repository):
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("service", ["github", "azure", "gitlab"])
def test_a_broken_script_stops_the_pipeline(service: str, repository: Path):
    script = repository / "score.py"
    script.write_text(script.read_text().replace("return {", "return {1} or {"))
    *_, last = run(service, repository)
    assert last.returncode == 1
    if service == "github":
        line = next(n for n, text in enumerate(script.read_text().splitlines(), 1) if text.startswith("def run"))
        assert last.stdout.startswith(f"::error file=score.py,line={line},title=AZ504 not-renderable::")


def published(service: str) -> str:
    pipeline = pipelines()[service]
    if service == "azure":
        (step,) = [step for step in pipeline["steps"] if step.get("task") == "PublishTestResults@2"]
        assert (step["condition"], step["inputs"]["testResultsFormat"]) == ("succeededOrFailed()", "JUnit")
        return str(step["inputs"]["testResultsFiles"])
    assert pipeline["validate"]["artifacts"]["when"] == "always"
    return str(pipeline["validate"]["artifacts"]["reports"]["junit"])


@pytest.mark.parametrize("service", ["azure", "gitlab"])
def test_the_report_is_where_the_service_looks_for_it(service: str, repository: Path):
    (repository / "score.py").write_text("def init(): pass\ndef run(data): return {1}\n")
    for done in run(service, repository):
        assert done.returncode == 1
    suite = ElementTree.parse(repository / published(service)).getroot()[0]
    assert suite.attrib["failures"] == "1"


def test_replay_of_the_page(repository: Path, shared: Start):
    (line,) = re.findall(r"^azmlinfsrv (replay .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    server = shared(str(ROOT / "examples" / "quickstart" / "score.py"), "--host", "127.0.0.1")
    words = line.replace(":5001", f":{server.port}").split()
    command = [sys.executable, "-m", "azureml_inference_server_http", *words]

    def replay() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=3 * PATIENCE)

    good = replay()
    assert (good.returncode, good.stderr) == (0, "")
    assert re.fullmatch(
        r"ok       samples/rows\.json: status 200, [\d.]+ ms, 17 bytes\n1 of 1 answers are as expected\.\n", good.stdout
    )
    (repository / "samples" / "empty.json").write_text("{}")
    (repository / "samples" / "empty.response.json").write_text('{"status": 400}')
    (repository / "samples" / "rows.response.json").write_text('{"scores": [4.6]}')
    bad = replay()
    assert bad.returncode == 1
    assert "differs  samples/empty.json: status 500, " in bad.stdout
    assert "         status: expected 400, got 500\n" in bad.stdout
    assert "         $.scores[0]: expected 4.6, got 4.5\n0 of 2 answers" in bad.stdout


def test_replay_adds_headers(tmp_path: Path, shared: Start):
    script = tmp_path / "score.py"
    script.write_text("def init(): pass\ndef run(data, request_headers): return request_headers.get('X-Token')\n")
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.response.json").write_text(json.dumps("secret"))
    server = shared(str(script), "--host", "127.0.0.1")
    words = ["replay", "--url", f"http://127.0.0.1:{server.port}/score", "--sample", "a.json"]
    command = [sys.executable, "-m", "azureml_inference_server_http", *words]
    done = subprocess.run([*command, "--header", "X-Token: secret"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 1


def test_replay_without_a_server(tmp_path: Path):
    from harness import Port

    port = Port()
    (tmp_path / "a.json").write_text("{}")
    command = [sys.executable, "-m", "azureml_inference_server_http", "replay", "--sample", "a.json", "--url"]
    done = subprocess.run([*command, f"http://127.0.0.1:{port.number}"], cwd=tmp_path, capture_output=True, text=True)
    port.release()
    assert done.returncode == 1
    assert "no answer: [Errno 111] Connection refused" in done.stdout
    wrong = subprocess.run([*command, "ftp://host"], cwd=tmp_path, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("azmlinfsrv replay: error: 'ftp://host' is no URL of a server")
