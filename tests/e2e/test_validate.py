"""What ``azmlinfsrv validate`` finds as people and pipelines run it: the corpus of broken scripts, samples, limits.

Owns what only the real command shows; ``test_validate_command.py`` has its formats and ends. The
rules are tested without processes in ``unit/test_validation_*.py``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from harness import SCRIPTS, Start
from validating import sample, script, validate

ROOT = Path(__file__).resolve().parents[2]
BROKEN = SCRIPTS / "broken"
OURS = "azureml_inference_server_http"
QUICKSTART = ROOT / "examples" / "quickstart"


# ---- The corpus

# For each script: further options, and the findings with their lines. Every script is sent {"data": [1]} unless it has
# a schema.
CORPUS: dict[str, tuple[Sequence[str], list[tuple[str, int | None]]]] = {
    "import_raises": ((), [("import-failed", 2)]),
    "syntax_error": ((), [("syntax-error", 5)]),
    "module_missing": ((), [("module-not-found", 1)]),
    "module_beside": ((), [("module-beside-script", 1)]),
    "exits_at_import": ((), [("script-exits", 3)]),
    "crashes_at_import": ((), [("import-crashes", 3)]),
    "hangs_at_import": (("--timeout", "4"), [("import-hangs", 3)]),
    "no_init": ((), [("no-init", None)]),
    "no_run": ((), [("no-run", None)]),
    "signature_refused": ((), [("signature-refused", None)]),
    "run_yields": ((), [("run-not-awaited", 5)]),
    "init_yields": ((), [("init-not-awaited", 1)]),
    "init_raises": ((), [("init-failed", 2)]),
    "model_file_missing": (("--model_dir", "model"), [("model-file-missing", 5)]),
    "model_file_missed": (("--model_dir", "model"), [("model-file-missed", 9)]),
    "model_dir_not_set": ((), [("model-dir-not-set", 5)]),
    "init_hangs": (("--timeout", "4"), [("init-hangs", 5)]),
    "init_leaves": ((), [("init-crashes", 5)]),
    "swagger_fails": ((), [("swagger-failed", None)]),
    "run_raises": ((), [("run-failed", 9)]),
    "schema_refuses": ((), [("sample-refused", None)]),
    "run_hangs": (("--timeout", "4"), [("run-hangs", 9)]),
    "run_crashes": ((), [("run-crashes", 9)]),
    "run_leaves": ((), [("run-crashes", 9)]),
    "status_in_tuple": ((), [("status-in-tuple", 5)]),
    "json_twice": ((), [("json-twice", 8)]),
    "not_a_number": ((), [("not-a-number", 5)]),
    "set_in_result": ((), [("not-renderable", 5)]),
    "response_from_dict": ((), [("response-from-dict", 8)]),
    "returns_nothing": ((), [("returns-nothing", 5)]),
    "answers_an_error": ((), [("error-status", 8)]),
    "counts_calls": ((), [("answers-differ", 8)]),
    "second_call_fails": ((), [("second-call-fails", 10)]),
    "history_grows": ((), [("state-grows", 1)]),
    "default_grows": ((), [("state-grows", 5)]),
    "unnamed_package": (("--requirements", "requirements.txt"), [("package-not-named", 1)]),
    "slow": (("--budget_ms", "1"), [("too-slow", 8)]),
}


def test_the_corpus_is_complete():
    assert set(CORPUS) == {path.stem for path in BROKEN.glob("*.py")}


@pytest.mark.parametrize("name", CORPUS)
def test_a_broken_script(tmp_path: Path, name: str):
    options, expected = CORPUS[name]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.txt").write_text("x")
    (tmp_path / "requirements.txt").write_text("scikit-learn\n")
    (tmp_path / "sample.json").write_text('{"data": [1]}')
    result = validate(
        *(tmp_path, "--entry_script", BROKEN / f"{name}.py", "--sample", "sample.json", "--format", "json", *options)
    )
    assert result.found() == expected, result.stdout + result.stderr
    assert (result.code, result.stderr) == (1, "")
    for found in result.document["findings"]:
        if found["line"] is not None:
            assert Path(found["file"]).name == f"{name}.py"


# ---- Scripts that are valid


def test_the_quickstart_is_valid(tmp_path: Path):
    sample(tmp_path, value={"data": [[1, 2]]})
    sample(tmp_path, "sample.response.json", {"scores": [4.5]})
    result = validate(tmp_path, "--entry_script", QUICKSTART / "score.py", "--sample", "sample.json")
    assert (result.code, result.stderr) == (0, "")
    assert "score.py is valid" in result.stdout
    assert len(result.stdout.splitlines()) <= 24, "more than a screen"


def test_a_script_without_samples_is_told_so(tmp_path: Path):
    result = validate(tmp_path, "--entry_script", QUICKSTART / "score.py", "--format", "json")
    lines = (QUICKSTART / "score.py").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if text.startswith("def run"))
    assert (result.code, result.found()) == (0, [("not-called", line)])


def test_a_schema_is_a_sample(tmp_path: Path):
    result = validate(tmp_path, "--entry_script", ROOT / "examples/schema/score.py", "--format", "json")
    assert (result.code, result.found()) == (0, [])
    assert result.document["steps"][-1]["sample"] == "from @input_schema"
    assert result.document["steps"][-1]["detail"].startswith("status 200")


def test_the_upload_example_with_a_described_request(tmp_path: Path):
    boundary = "--x\r\nContent-Disposition: form-data; name=table; filename=a.csv\r\n\r\na,b\n1,2\n\r\n--x--\r\n"
    (tmp_path / "form.bin").write_bytes(boundary.encode())
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    sample(tmp_path, "a.request.json", {"headers": headers, "body_file": "form.bin"})
    sample(tmp_path, "a.response.json", {"file": "a.csv", "columns": ["a", "b"], "rows": 1})
    sample(tmp_path, "b.request.json", {"method": "GET"})
    sample(tmp_path, "b.response.json", {"status": 400})
    script = ROOT / "examples/upload/score.py"
    result = validate(tmp_path, "--entry_script", script, "--samples", ".", "--format", "json")
    assert (result.code, result.found()) == (0, [])
    assert [step["sample"] for step in result.document["steps"][-2:]] == ["a.request.json", "b.request.json"]


def test_query_and_headers_reach_the_script(tmp_path: Path):
    script(tmp_path, "def init(): pass\ndef run(data, request_headers): return [data, request_headers.get('X-User')]\n")
    sample(tmp_path, "a.request.json", {"method": "GET", "query": {"n": 1, "word": "a b"}, "headers": {"X-User": "me"}})
    sample(tmp_path, "a.response.json", ['{"n": 1, "word": "a b"}', "me"])
    result = validate(tmp_path, "--entry_script", "score.py", "--samples", ".", "--format", "json")
    assert (result.code, result.found()) == (0, [])


def test_the_server_reads_its_own_settings(tmp_path: Path):
    script(tmp_path, "import time\ndef init(): pass\ndef run(data): time.sleep(30)\n")
    sample(tmp_path)
    (tmp_path / "config.json").write_text('{"SCORING_TIMEOUT_MS": 100}')
    result = validate(tmp_path, "--entry_script", "score.py", "--sample", "sample.json", "--format", "json")
    assert result.found() == [("run-hangs", 3)]
    assert "Scoring timeout after 100 ms" in result.document["findings"][0]["message"]


def test_limits_of_the_server_hold(tmp_path: Path):
    sample(tmp_path)
    result = validate(
        *(tmp_path, "--entry_script", QUICKSTART / "score.py", "--sample", "sample.json"),
        *("--format", "json", "--max_request_size", "5"),
    )
    assert result.found() == [("sample-refused", None)]
    assert "413" in result.document["findings"][0]["message"]


def test_worker_threads(tmp_path: Path):
    sample(tmp_path)
    options = ("--sample", "sample.json", "--format", "json", "--worker_class", "thread")
    good = validate(tmp_path, "--entry_script", QUICKSTART / "score.py", *options)
    assert (good.code, good.found()) == (0, [])
    for name, expected in (("run_raises", ("run-failed", 9)), ("run_leaves", ("run-crashes", 9))):
        bad = validate(tmp_path, "--entry_script", BROKEN / f"{name}.py", *options)
        assert bad.found() == [expected]


# ---- Before the script


def test_a_script_that_is_not_there(tmp_path: Path):
    script(tmp_path, "")
    result = validate(tmp_path, "--entry_script", "scroe.py", "--format", "json")
    assert (result.code, result.found()) == (1, [("script-not-found", None)])
    assert result.document["findings"][0]["file"] == str(tmp_path / "scroe.py")
    assert "did you mean score.py?" in result.document["findings"][0]["message"]


@pytest.mark.parametrize(
    ("options", "files", "added", "name"),
    [
        ((), {}, {"WORKER_TIMEOUT": "soon"}, "setting-refused"),
        ((), {}, {"AZMLINFSRV_MAX_QEUE": "1"}, "setting-without-effect"),
        ((), {"config.json": "{"}, {}, "settings-file-unusable"),
        ((), {"logging.json": "{"}, {}, "settings-file-unusable"),
        (("--model_dir", "modle"), {}, {}, "model-dir-missing"),
    ],
)
def test_settings_that_are_wrong(
    tmp_path: Path, options: Sequence[str], files: dict[str, str], added: dict[str, str], name: str
):
    script(tmp_path, "def init(): pass\ndef run(data): return 1\n")
    sample(tmp_path)
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    result = validate(
        *(tmp_path, "--entry_script", "score.py", "--sample", "sample.json", "--format", "json", *options), **added
    )
    assert (result.code, result.found()) == (1, [(name, None)])


# ---- Samples


def test_each_sample_has_its_own_verdict_also_after_a_crash(tmp_path: Path):
    script(
        tmp_path,
        "import json, os\ndef init(): pass\ndef run(data):\n    n = json.loads(data)\n    if n == 2: os._exit(1)\n"
        "    return {'n': n}\n",
    )
    for number in (1, 2, 3):
        sample(tmp_path, f"{number}.json", number)
    result = validate(tmp_path, "--entry_script", "score.py", "--samples", ".", "--format", "json")
    assert result.found() == [("run-crashes", 5)]
    outcomes = {step["sample"]: step["outcome"] for step in result.document["steps"] if step["sample"]}
    assert outcomes == {"1.json": "passed", "2.json": "failed", "3.json": "passed"}


def test_expected_answers(tmp_path: Path):
    script(tmp_path, "import time\ndef init(): pass\ndef run(data): return {'n': 1.0001, 'time': time.time()}\n")
    path = sample(tmp_path)
    sample(tmp_path, "sample.response.json", {"n": 1, "time": 0})
    command = (tmp_path, "--entry_script", "score.py", "--sample", path, "--format", "json")
    assert [name for name, _ in validate(*command).found()] == ["other-answer", "answers-differ"]
    assert [name for name, _ in validate(*command, "--once").found()] == ["other-answer"]
    assert [name for name, _ in validate(*command, "--ignore_path", "$.time").found()] == ["other-answer"]
    assert validate(*command, "--ignore_path", "$.time", "--rtol", "0.001").found() == []
    assert [name for name, _ in validate(*command, "--ignore", "other-answer").found()] == ["answers-differ"]
    assert validate(*command, "--ignore", "AZ507,AZ601").found() == []


def test_a_sample_that_is_unusable(tmp_path: Path):
    sample(tmp_path, "a.request.json", {"bdoy": 1})
    sample(tmp_path, "b.json")
    script = QUICKSTART / "score.py"
    result = validate(tmp_path, "--entry_script", script, "--samples", ".", "--format", "json")
    assert (result.code, result.found()) == (1, [("sample-unusable", None)])
    assert [step["outcome"] for step in result.document["steps"][-2:]] == ["failed", "passed"]


# ---- Budgets


def test_memory_beyond_the_budget(tmp_path: Path):
    script(tmp_path, "def init():\n    global model\n    model = bytearray(300_000_000)\ndef run(data): return 1\n")
    command = (tmp_path, "--entry_script", "score.py", "--sample", sample(tmp_path), "--format", "json", "--budget_mb")
    assert validate(*command, "200").found() == [("too-large", None)]
    assert validate(*command, "2000").found() == []


# ---- What the script sees


def test_the_script_sees_what_it_would_see_in_the_server(tmp_path: Path, start: Start):
    """Modules above all: a script that imports ``xml`` and uses ``xml.dom`` must not pass here and fail there."""
    path = script(
        tmp_path,
        "import json, os, sys\n"
        "seen = {'modules': sorted(sys.modules), 'path': sys.path, 'folder': os.getcwd(), 'name': __name__,\n"
        "        'arguments': sys.argv[1:], 'variables': sorted(os.environ)}\n"
        "with open(os.environ['OUT'], 'w') as file: json.dump(seen, file)\n"
        "def init(): pass\n"
        "def run(data): return 1\n",
    )
    out = tmp_path / "seen.json"
    server = start(str(path), OUT=str(out))
    served = json.loads(out.read_text())
    validate(server.folder, "--entry_script", path, OUT=str(out), TMPDIR=str(server.temporary))
    seen = json.loads(out.read_text())
    more = set(seen["modules"]) - set(served["modules"])
    assert {name for name in more if not name.startswith(OURS)} == set()
    # Only the server looks up an address, which Python encodes.
    others = {name for name in set(served["modules"]) - set(seen["modules"]) if not name.startswith(OURS)}
    assert others <= {"encodings.idna", "stringprep", "unicodedata"}
    for part in ("path", "folder", "name"):
        assert seen[part] == served[part], part
    assert set(seen["variables"]) == set(served["variables"]) - {"AZMLINFSRV_WORKER_CLASS"}
    assert seen["arguments"] == ["--entry_script", str(path)]


# ---- Logging


@pytest.mark.parametrize("call", ["logging.info('x')", "logging.getLogger(__name__).info('x')"])
@pytest.mark.parametrize("place", ["init", "run"])
def test_logging_that_goes_nowhere_is_a_note(tmp_path: Path, call: str, place: str):
    body = {"init": "pass", "run": "pass", place: call}
    text = f"def init():\n    {body['init']}\ndef run(data):\n    {body['run']}\n    return 1\n"
    options = ("--entry_script", script(tmp_path, "import logging\n" + text), "--sample", sample(tmp_path))
    lost = validate(tmp_path, *options, "--format", "json")
    assert (lost.code, lost.found()) == (0, [("logging-lost", 3 if place == "init" else 5)])
    named = call.partition(".info")[0].replace("__name__", "'entry_module'")
    message = f"the script calls {named}.info(), and the root logger is at WARNING"
    assert lost.document["findings"][0]["message"] == message
    script(tmp_path, "import logging\nlogging.getLogger().setLevel(logging.INFO)\n" + text)
    assert validate(tmp_path, *options, "--format", "json").found() == []


# ---- Tracebacks


def test_the_traceback_ends_in_the_users_error_and_has_no_frame_of_the_server(tmp_path: Path):
    script(
        tmp_path,
        "import json\ndef init(): pass\ndef run(data):\n    try:\n        json.loads('{')\n"
        "    except ValueError as error:\n        raise RuntimeError('bad input') from error\n",
    )
    result = validate(tmp_path, "--entry_script", "score.py", "--sample", sample(tmp_path), "--format", "json")
    (found,) = result.document["findings"]
    lines = found["traceback"].splitlines()
    assert lines[-1] == "RuntimeError: bad input"
    assert "  (3 lines of Python left out)" in lines
    assert "azureml_inference_server_http" not in found["traceback"]
    assert (found["message"], found["line"]) == ("RuntimeError: bad input", 7)
