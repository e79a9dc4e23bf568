"""The commands and requests of README.md and the examples, as a newcomer types them.

Owns that what these pages show is what happens. What they say without showing it is checked by
``unit/test_readme.py``.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Server, Start

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SKLEARN = ROOT / "examples" / "sklearn"


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)\n```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def command(page: Path, program: str) -> list[str]:
    """The one line of the page's code that starts this program, as its words."""
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    (found,) = [words for words in map(shlex.split, lines) if words[:1] == [program]]
    return found


def type_curl(page: Path, folder: Path, server: Server) -> str:
    """Run the page's curl command in ``folder``, at the server's port. Returns what it prints."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    words = command(page, "curl")
    assert words[-1].startswith("http://127.0.0.1:5001/")
    words[-1] = words[-1].replace(":5001/", f":{server.port}/")
    done = subprocess.run([*words, "--silent"], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


@pytest.fixture
def quickstart(shared: Start) -> Server:
    """Start the server as README.md does."""
    program, option, script = command(README, "azmlinfsrv")
    assert (program, option) == ("azmlinfsrv", "--entry_script")
    return shared(str(ROOT / script), "--host", "127.0.0.1")


def test_first_request_of_the_readme(quickstart: Server):
    assert type_curl(README, ROOT, quickstart) == blocks(README, "json")[0]
    assert quickstart.wait_for_record("ready for serving traffic")


def test_the_check_of_the_readme(tmp_path: Path):
    (words,) = re.findall(r"`azmlinfsrv (validate .*?)`", README.read_text(encoding="utf-8"))
    *options, script = words.split()
    # Not in the folder of the clone, whose sources Python would import.
    command = [sys.executable, "-m", "azureml_inference_server_http", *options, str(ROOT / script)]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (done.returncode, "score.py is valid" in done.stdout) == (0, True), done.stdout


@pytest.mark.any_worker_class
def test_the_tool_that_tries_a_wheel(worker_class: str):
    tool = [sys.executable, str(ROOT / "tools" / "try_wheel.py"), "--worker_class", worker_class]
    done = subprocess.run(tool, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "answered {'scores': [4.5, 45.0]}" in done.stdout


def routes() -> list[tuple[str, str, str]]:
    rows = re.findall(r"^\| `(GET|POST) (/\S*)` \| (.*) \|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 7
    return rows


@pytest.mark.parametrize(("method", "target", "answer"), routes())
def test_routes_of_the_readme(quickstart: Server, method: str, target: str, answer: str):
    if target == "/score?a=1":
        target = "/score?data=[[1,2]]"
    body = b'{"data": [[1, 2]]}' if method == "POST" else b""
    reply = quickstart.request(method, target, body)
    assert reply.status == 200
    text = re.match(r"200 `(\w+)`", answer)
    if text:
        assert reply.text == text[1]
    elif "score" in target:
        assert reply.json() == {"scores": [4.5]}
    elif target == "/docs":
        assert reply.text.startswith("<!doctype html>")
    else:
        assert reply.json()["swagger"] == "2.0"


def test_other_paths_and_methods(quickstart: Server):
    assert quickstart.get("/other").status == 404
    assert quickstart.request("DELETE", "/score").status == 405


def test_an_answer_with_a_status_of_ones_own(start: Start, tmp_path: Path):
    (expression,) = re.findall(r"Return `(AMLResponse\(.*?\))`", README.read_text(encoding="utf-8"))
    script = tmp_path / "score.py"
    script.write_text(
        "from azureml_inference_server_http.api.aml_response import AMLResponse\n"
        f"def init(): pass\ndef run(data): return {expression}\n"
    )
    reply = start(str(script), "--host", "127.0.0.1").score()
    assert (reply.status, reply.json()) == (404, {"message": "no such flower"})


@pytest.mark.parametrize("name", ["upload", "schema"])
def test_small_examples(start: Start, name: str):
    folder = ROOT / "examples" / name
    page = folder / "README.md"
    program, entry, script = command(page, "azmlinfsrv")
    assert (program, entry) == ("azmlinfsrv", "--entry_script")
    server = start(str(folder / script), "--host", "127.0.0.1")
    assert type_curl(page, folder, server) == blocks(page, "json")[0]


def test_refusals_of_the_small_examples(shared: Start):
    upload = shared(str(ROOT / "examples/upload/score.py"), "--host", "127.0.0.1")
    assert upload.score("no form").status == 400
    schema = shared(str(ROOT / "examples/schema/score.py"), "--host", "127.0.0.1")
    assert schema.score('{"data": [[1, 2]]}').status == 415
    refused = schema.score('{"data": [[1, 2, 3]]}', content_type="application/json")
    assert (refused.status, refused["x-ms-run-error-location"]) == (500, "ValueError")


def test_configuration_file_of_the_settings_page(start: Start, tmp_path: Path):
    example, _ = blocks(ROOT / "docs" / "settings.md", "json")
    (tmp_path / "config.json").write_text(example)
    server = start("echo.py", "--config_file", str(tmp_path / "config.json"))
    server.wait_for_record("Scoring timeout is set to 60000")


def test_logging_json_of_the_settings_page(start: Start, tmp_path: Path):
    _, example = blocks(ROOT / "docs" / "settings.md", "json")
    (tmp_path / "logging.json").write_text(example)
    script = tmp_path / "score.py"
    script.write_text(
        "import logging\ndef init(): logging.info('the root logger says so')\ndef run(data): return data\n"
    )
    server = start(str(script))
    record = server.wait_for_record("the root logger says so", logger="root", level="I")
    assert record.pid in server.workers()
    assert f"Loaded logging config from {tmp_path / 'logging.json'}" in server.stdout()
    server.score("x")
    server.wait_for_record("POST /score 200")


def test_the_root_logger_of_a_script_as_the_readme_has_it(start: Start, tmp_path: Path):
    (remedy,) = re.findall(r"`(logging\.getLogger\(\)\.setLevel\(.*?\))`", README.read_text(encoding="utf-8"))
    script = tmp_path / "score.py"
    script.write_text(
        "import logging\nlogging.basicConfig(level=logging.INFO)\nlogging.info('lost')\n"
        f"{remedy}\nlogging.info('found')\ndef init(): pass\ndef run(data): return data\n"
    )
    assert start(str(script)).complaints() == "INFO:root:found\n"


@pytest.mark.timeout(180)
def test_sklearn_example(start: Start, tmp_path: Path):
    """Training, serving and the request of the example's page; in a copy, so that the folder stays
    as it is."""
    pytest.importorskip("sklearn")
    page = SKLEARN / "README.md"
    folder = tmp_path / "sklearn"
    shutil.copytree(SKLEARN, folder, ignore=shutil.ignore_patterns("models"))
    subprocess.run([sys.executable, *command(page, "python")[1:]], cwd=folder, check=True)
    program, entry, script, option, models = command(page, "azmlinfsrv")
    assert (program, entry, option) == ("azmlinfsrv", "--entry_script", "--model_dir")
    server = start(str(folder / script), option, str(folder / models), "--host", "127.0.0.1")
    answer = json.loads(type_curl(page, folder, server))
    shown = json.loads(blocks(page, "json")[0])
    assert answer["predictions"] == shown["predictions"]
    assert answer["probabilities"] == pytest.approx(shown["probabilities"], abs=0.05)

    refused = server.score('{"data": [[1, 2, 3]]}')
    assert refused.status == 500
    line = next(n for n, text in enumerate((folder / script).read_text().splitlines(), 1) if "predict_proba" in text)
    assert refused["x-ms-run-error-location"] == f"score.py:{line} ValueError"
    assert "expecting 4 features" in server.stdout()
