"""``azmlinfsrv validate`` as a command: formats, usage, ends. ``test_validate.py`` has what it finds."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from harness import COMMAND, PATIENCE, SCRIPTS, TIED_TO_US, eventually, is_running
from receiver import Receiver
from validating import environment, sample, script, validate

import azureml_inference_server_http

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
BROKEN = SCRIPTS / "broken"
OURS = "azureml_inference_server_http"


# ---- Formats


def test_junit_of_the_command(tmp_path: Path):
    result = validate(
        *(tmp_path, "--entry_script", BROKEN / "run_raises.py", "--sample", sample(tmp_path)),
        *("--format", "junit", "--output", "report.xml"),
    )
    assert (result.code, result.stdout) == (1, "")
    assert "AZ402 run-failed" in result.stderr
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()[0]
    assert suite.attrib["failures"] == "1"
    assert suite.find("testcase[@name='sample sample.json']/failure") is not None


def test_github_annotations_of_the_command(tmp_path: Path):
    path = script(tmp_path, "def init(): pass\ndef run(data): return {1, 2}\n")
    result = validate(tmp_path, "--entry_script", path, "--sample", sample(tmp_path), "--format", "github")
    assert result.stdout.splitlines()[0].startswith("::error file=score.py,line=2,title=AZ504 not-renderable::")


def test_no_colours_off_a_terminal(tmp_path: Path):
    result = validate(tmp_path, "--entry_script", QUICKSTART / "score.py")
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(("added", "has_colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal(tmp_path: Path, added: dict[str, str], has_colours: bool):
    import pty

    master, slave = pty.openpty()
    words = [*TIED_TO_US, *COMMAND, "validate", "--entry_script", str(QUICKSTART / "score.py")]
    settings = environment(tmp_path, TERM="xterm", **added)
    process = subprocess.Popen(words, cwd=tmp_path, env=settings, stdout=slave, stderr=subprocess.PIPE)
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # the end of a terminal
        pass
    _, stderr = process.communicate(timeout=PATIENCE)
    os.close(master)
    assert (process.returncode, stderr) == (0, b"")
    assert (b"\x1b[" in shown) is has_colours


# ---- Usage


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ((), "--entry_script"),
        (("--sample", "absent.json"), "absent.json"),
        (("--samples", "absent"), "absent"),
        (("--samples", "."), "no samples"),
        (("--ignore", "AZ999"), "AZ999"),
        (("--budget_ms", "0"), "--budget_ms"),
        (("--timeout", "-1"), "--timeout"),
        (("--ignore_path", "$"), "--ignore_path"),
        (("--format", "xml"), "--format"),
        (("--entry_scirpt", "score.py"), "arguments: --entry_scirpt score.py (did you mean --entry_script?)"),
        (("--entry-script=score.py",), "(did you mean --entry_script?)"),
        (("score.py",), "arguments: score.py (azmlinfsrv validate --help lists all options)"),
        (("--entry_script", str(QUICKSTART / "score.py"), "--requirements", "absent.txt"), "absent.txt"),
    ],
)
def test_wrong_usage(tmp_path: Path, options: Sequence[str], fault: str):
    result = validate(tmp_path, *options)
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith("azmlinfsrv validate: error: ")
    assert fault in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help_and_explanations(tmp_path: Path):
    shown = validate(tmp_path, "--help")
    assert shown.code == 0
    assert "--budget_ms" in shown.stdout
    assert validate(tmp_path, "--explain", "AZ503").stdout.startswith("AZ503 not-a-number (warning)\n")


def test_validate_is_a_command_only_as_the_first_word(tmp_path: Path):
    words = [*TIED_TO_US, *COMMAND, "--port", "1", "validate"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1
    assert "unrecognized arguments: validate" in done.stderr


# ---- Ends


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_process(tmp_path: Path, number: int):
    path = script(
        tmp_path,
        "import os, threading\nprint('x')\nopen('pid', 'w').write(f'{os.getpid()} {os.getppid()}')\n"
        "threading.Event().wait()\ndef init(): pass\ndef run(data): pass\n",
    )
    words = [*TIED_TO_US, *COMMAND, "validate", "--entry_script", str(path)]
    process = subprocess.Popen(words, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE)
    pid_file = tmp_path / "pid"
    eventually(lambda: pid_file.exists() and len(pid_file.read_text().split()) == 2, "the script is imported")
    pids = [int(pid) for pid in pid_file.read_text().split()]
    os.kill(process.pid, number)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -number
    for pid in pids:
        eventually(lambda pid=pid: not is_running(pid), f"process {pid} has ended")


def test_children_of_a_script_that_hangs_end_with_it(tmp_path: Path):
    path = script(
        tmp_path,
        "import subprocess, sys, threading\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import threading; threading.Event().wait()'])\n"
        "open('pid', 'w').write(str(child.pid))\n"
        "threading.Event().wait()\n",
    )
    result = validate(tmp_path, "--entry_script", path, "--timeout", "4", "--format", "json")
    assert result.found() == [("import-hangs", 4)]
    eventually(lambda: not is_running(int((tmp_path / "pid").read_text())), "the script's child has ended")


def test_the_scripts_own_end_is_run(tmp_path: Path):
    path = script(
        tmp_path, "import atexit\natexit.register(lambda: open('ended', 'w'))\ndef init(): pass\ndef run(data): pass\n"
    )
    assert validate(tmp_path, "--entry_script", path).code == 0
    assert (tmp_path / "ended").exists()


def test_output_that_nobody_reads_does_not_end_in_a_traceback(tmp_path: Path):
    command = " ".join([*COMMAND, "validate", "--entry_script", str(QUICKSTART / "score.py")])
    done = subprocess.run(
        ["sh", "-c", f"{command} | true"], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


def test_a_validation_sends_no_telemetry(tmp_path):
    with Receiver() as receiver:
        exporters = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
            "OTEL_BSP_SCHEDULE_DELAY": "1",
            "AML_APP_INSIGHTS_ENABLED": "true",
            "AML_APP_INSIGHTS_KEY": "00000000-0000-0000-0000-000000000001",
            "APPLICATIONINSIGHTS_CONNECTION_STRING": f"IngestionEndpoint={receiver.url}",
        }
        path = script(tmp_path, "def init(): print('hello')\ndef run(data): return 1\n")
        (tmp_path / "one.txt").write_text("x")
        result = validate(tmp_path, "--entry_script", path, "--sample", "one.txt", **exporters)
        assert result.code == 0, result.stdout + result.stderr
        assert receiver.requests == []


def test_a_validation_does_not_watch_files(tmp_path):
    path = script(tmp_path, "def init(): pass\ndef run(data): return 1\n")
    (tmp_path / "one.txt").write_text("x")
    result = validate(tmp_path, "--entry_script", path, "--sample", "one.txt", AZMLINFSRV_RELOAD="true")
    assert result.code == 0, result.stdout + result.stderr


def test_a_package_without_its_core_is_told_in_a_line(tmp_path: Path):
    """As in a clone of the sources that was never built."""
    package = Path(azureml_inference_server_http.__file__).parent
    ignored = shutil.ignore_patterns("_core.*.so", "_core.*.pyd", "__pycache__")
    shutil.copytree(package, tmp_path / package.name, ignore=ignored)
    path = script(tmp_path, "def init(): pass\ndef run(data): return 1\n")
    result = validate(tmp_path, "--entry_script", path, PYTHONPATH=str(tmp_path))
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith("azmlinfsrv validate: error: the native module is missing. Install the package")
    assert len(result.stderr.splitlines()) == 1
