"""From events and answers to findings, without a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from azureml_inference_server_http.validation import calls, detection, findings, start
from azureml_inference_server_http.validation.calls import Wanted
from azureml_inference_server_http.validation.comparing import Answer, Tolerance
from azureml_inference_server_http.validation.detection import Stack
from azureml_inference_server_http.validation.findings import Finding, Place
from azureml_inference_server_http.validation.report import FAILED, PASSED, SKIPPED
from azureml_inference_server_http.validation.samples import Expected, Sample
from azureml_inference_server_http.validation.session import Answered, Ended, Hung, Outcome

SAMPLE = Sample("a.json", "POST", "/score", {}, b"{}", "/s/a.json")
RUN = Place("/app/score.py", 5)
GOOD = Answer(200, {}, b'{"n": 1}')


def step(name: str, at: float) -> dict[str, Any]:
    return {"event": "step", "name": name, "at": at, "pid": 1, "rss": 10_000_000, "peak": 20_000_000}


def loaded(**changed: Any) -> dict[str, Any]:
    facts = {"mode": "text", "parameters": ["data"], "run": ["/app/score.py", 5], "init": ["/app/score.py", 1]}
    return {"event": "loaded", "at": 1.0, "rss": 10_000_000, **facts, "run_is": None, "init_is": None, **changed}


READY = {"event": "ready", "at": 3.5, "versions": ["2", "3"], "sample": None, "sources": ["/app/score.py"]}
GOOD_START = [step("import", 0.0), loaded(), step("init", 1.0), step("swagger", 3.0), READY]


def failed(kind: str = "ScriptLoadError", **error: Any) -> dict[str, Any]:
    facts = {"type": "ValueError", "bases": ["ValueError", "Exception"], "message": "no", "traceback": "trace"}
    described = {**facts, "file": "/app/score.py", "line": 7, **error}
    return {"event": "failed", "at": 2.0, "kind": kind, "error": described}


def read(events: list[dict[str, Any]], stack: Stack | None = None, model_dir: str | None = "/m") -> start.Started:
    return start.read(events, 5.0, model_dir, "; it has x.pkl", stack)


def names(found: list[Finding]) -> list[str]:
    return [each.kind.name for each in found]


# ---- The start


def test_a_good_start():
    started = read(GOOD_START)
    assert started.is_ready
    assert started.findings == []
    assert [(each.name, each.outcome, each.seconds) for each in started.steps] == [
        ("import", PASSED, 1.0),
        ("signatures", PASSED, None),
        ("init()", PASSED, 2.0),
        ("swagger", PASSED, 0.5),
    ]
    assert started.steps[1].detail == "run(data) gets the body as text"
    assert (started.run, started.seconds, started.peak) == (RUN, 3.0, 20_000_000)


@pytest.mark.parametrize(
    ("kind", "error", "name"),
    [
        ("UserScriptImportException", {}, "import-failed"),
        ("UserScriptImportException", {"bases": ["SystemExit"]}, "script-exits"),
        ("UserScriptImportException", {"bases": ["IndentationError", "SyntaxError"]}, "syntax-error"),
        ("UserScriptImportException", {"bases": ["ModuleNotFoundError", "ImportError"]}, "module-not-found"),
        ("UserScriptError", {"message": "User script at x does not have a init() function defined."}, "no-init"),
        ("UserScriptError", {"message": "User script at x does not have a run() function defined."}, "no-run"),
        ("UserScriptError", {"message": "run() cannot accept *args"}, "signature-refused"),
    ],
)
def test_a_script_that_cannot_be_imported(kind: str, error: dict[str, Any], name: str):
    started = read([step("import", 0.0), failed(kind, **error)])
    assert names(started.findings) == [name]
    assert not started.is_ready
    assert [each.outcome for each in started.steps][2:] == [SKIPPED, SKIPPED]


@pytest.mark.parametrize(
    ("error", "model_dir", "name"),
    [
        ({}, "/m", "init-failed"),
        ({"bases": ["FileNotFoundError", "OSError"]}, "/m", "model-file-missing"),
        ({"bases": ["KeyError"], "message": "'AZUREML_MODEL_DIR'"}, None, "model-dir-not-set"),
        ({"bases": ["KeyError"], "message": "'AZUREML_MODEL_DIR'"}, "/m", "init-failed"),
        (
            {"bases": ["TypeError"], "message": "expected str, bytes or os.PathLike object, not NoneType"},
            *(None, "model-dir-not-set"),
        ),
        ({"bases": ["SystemExit"]}, "/m", "script-exits"),
    ],
)
def test_an_init_that_fails(error: dict[str, Any], model_dir: str | None, name: str):
    events = [step("import", 0.0), loaded(), step("init", 1.0), failed(**error)]
    started = read(events, model_dir=model_dir)
    (found,) = started.findings
    assert (found.kind.name, found.place, found.traceback) == (name, Place("/app/score.py", 7), "trace")
    assert ("x.pkl" in found.message) is (name == "model-file-missing")
    assert [each.outcome for each in started.steps] == [PASSED, PASSED, FAILED, SKIPPED]


def test_a_swagger_document_that_cannot_be_made():
    started = read([*GOOD_START[:-1], failed("SwaggerError", file=None, line=None)])
    assert names(started.findings) == ["swagger-failed"]
    assert [each.outcome for each in started.steps] == [PASSED, PASSED, PASSED, FAILED]


@pytest.mark.parametrize(("events", "step_name"), [(GOOD_START[:1], "import"), (GOOD_START[:3], "init")])
def test_a_start_that_hangs_or_crashes(events: list[dict[str, Any]], step_name: str):
    stack = Stack("Segmentation fault", Place("/app/score.py", 3))
    (hung,) = read([*events, {"event": "hung"}], stack).findings
    assert (hung.kind.name, hung.place) == (f"{step_name}-hangs", stack.place)
    assert "5 s" in hung.message
    (ended,) = read([*events, {"event": "ended", "how": "was killed by signal 11 (SIGSEGV)"}], stack).findings
    assert (ended.kind.name, ended.place) == (f"{step_name}-crashes", stack.place)
    exiting = {"event": "exiting", "code": 7, "file": "/app/score.py", "line": 2}
    (left,) = read([*events, exiting, {"event": "ended", "how": "exited with code 7"}]).findings
    assert (left.place, left.message) == (Place("/app/score.py", 2), "the process called os._exit(7)")


def test_functions_whose_code_does_not_run():
    events = [
        step("import", 0.0),
        loaded(run_is="a generator function", init_is="an async generator function"),
        *GOOD_START[2:],
    ]
    started = read(events)
    assert names(started.findings) == ["run-not-awaited", "init-not-awaited"]
    assert started.findings[0].place == RUN
    assert not started.is_ready


def test_a_missed_model_file():
    missed = {"event": "missed", "path": "/m/x", "file": "/app/score.py", "line": 4}
    (found,) = read([*GOOD_START[:4], missed, READY]).findings
    assert (found.kind.name, found.place) == ("model-file-missed", Place("/app/score.py", 4))


# ---- Stacks in the log

DUMP = """\
2026-01-01 I [1] azmlinfsrv - something
Timeout (0:00:05)!
Thread 0x00007f1 (most recent call first):
  File "/usr/lib/python3/threading.py", line 1 in wait
  File "/app/other.py", line 9 in pump
Thread 0x00007f2 (most recent call first):
  File "/usr/lib/python3/threading.py", line 327 in wait
  File "/app/score.py", line 9 in run
  File "/app/score.py", line 3 in outer
"""


def test_the_deepest_line_of_the_users_in_the_main_thread():
    assert detection.last_stack(DUMP, ["/app/"]) == Stack("timeout", Place("/app/score.py", 9))


def test_the_last_stack_counts():
    crash = (
        "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n"
        '  File "/app/a.py", line 2 in f\n'
    )
    assert detection.last_stack(DUMP + crash, ["/app/"]) == Stack("Segmentation fault", Place("/app/a.py", 2))


def test_no_stack():
    assert detection.last_stack("nothing", ["/app/"]) is None
    assert detection.last_stack(DUMP, ["/other/"]) == Stack("timeout", None)


# ---- Calls


def called(**facts: Any) -> dict[str, Any]:
    return {"event": "called", "seconds": 0.002, "peak": 5, "traps": [], "grown": [], **facts}


ERROR = {
    "type": "KeyError",
    "bases": ["KeyError"],
    "message": "'rows'",
    "file": "/app/score.py",
    "line": 9,
    "traceback": "t",
}
FAILURE = Answer(500, {"x-ms-run-function-failed": "True"}, b'{"message": "An unexpected error occurred"}')


def check(*outcomes: Outcome, sample: Sample = SAMPLE, **changed: Any) -> calls.Checked:
    answers: Iterator[Outcome] = iter(outcomes)
    wanted = Wanted(Tolerance(), Tolerance(), (), True, None, 5.0)._replace(**changed)
    checked = calls.check(
        sample, lambda sent: next(answers), wanted, RUN, lambda: Stack("timeout", Place("/app/a.py", 1))
    )
    assert list(answers) == [], "not sent"
    return checked


def answered(answer: Answer = GOOD, *events: dict[str, Any]) -> Answered:
    return Answered(answer, list(events or (called(),)), 0.003)


def test_a_good_answer_is_asked_for_twice():
    checked = check(answered(), answered())
    assert checked.findings == []
    assert (checked.detail, checked.seconds) == ("status 200, 2.0 ms, 8 bytes", 0.004)
    assert not checked.is_server_lost


def test_once():
    assert check(answered(), twice=False).findings == []


def test_a_trap():
    checked = check(answered(GOOD, called(traps=[["json-twice", "it is"]])), answered())
    assert names(checked.findings) == ["json-twice"]
    assert checked.findings[0].place == RUN


def test_an_error_is_not_asked_for_again():
    checked = check(answered(FAILURE, called(error=ERROR)))
    (found,) = checked.findings
    assert (found.kind.name, found.message) == ("run-failed", "KeyError: 'rows'")
    assert found.place == Place("/app/score.py", 9)


def test_the_scoring_timeout():
    error = {**ERROR, "type": "TimeoutError", "bases": ["TimeoutError"], "message": "the scoring time-out is over"}
    answer = FAILURE._replace(body=b'{"message": "Scoring timeout after 100 ms"}')
    assert names(check(answered(answer, called(error=error))).findings) == ["run-hangs"]


def test_a_sample_that_is_refused():
    refused = Answered(Answer(415, {}, b'{"message": "Expects Content-Type"}'), [], 0.1)
    (found,) = check(refused).findings
    assert (found.kind.name, found.message) == ("sample-refused", "status 415: Expects Content-Type")
    assert found.place == Place("/s/a.json", None)


@pytest.mark.parametrize(
    "outcome",
    [
        answered(FAILURE, called(error=ERROR)),
        Answered(FAILURE, [], 0.1),
        answered(Answer(500, {"x-ms-run-function-failed": "True"}, b"own"), called()),
    ],
)
def test_an_error_that_is_expected(outcome: Answered):
    sample = SAMPLE._replace(expected=Expected("/s/a.response.json", 500))
    assert check(outcome, sample=sample).findings == []


def test_another_answer_than_expected():
    sample = SAMPLE._replace(expected=Expected("/s/a.response.json", None, {}, {"n": 2}, True))
    (found,) = check(answered(), answered(), sample=sample).findings
    assert (found.kind.name, found.message) == ("other-answer", "$.n: expected 2, got 1")
    assert found.place == Place("/s/a.response.json", None)


def test_parts_that_may_differ_may_differ_between_two_answers_too():
    other = GOOD._replace(body=b'{"n": 2}')
    assert names(check(answered(), answered(other)).findings) == ["answers-differ"]
    assert check(answered(), answered(other), ignored=(("n",),)).findings == []
    sample = SAMPLE._replace(expected=Expected("f", None, {}, {"n": 1}, True, True, (("n",),)))
    assert check(answered(), answered(other), sample=sample).findings == []


def test_a_second_call_that_fails():
    (found,) = check(answered(), answered(FAILURE, called(error=ERROR))).findings
    assert (found.kind.name, found.place) == ("second-call-fails", Place("/app/score.py", 9))


def test_state_that_grows(tmp_path):
    script = tmp_path / "score.py"
    script.write_text("import os\n\nhistory: list = []\n\ndef run(data, seen=[]):\n    pass\n")
    grown = [[str(script), "history", 1, 2], [str(script), "the default of seen", 1, 2]]
    checked = check(answered(), answered(GOOD, called(grown=grown)))
    assert [(each.kind.name, each.place) for each in checked.findings] == [
        ("state-grows", Place(str(script), 3)),
        ("state-grows", Place(str(script), 5)),
    ]


def test_growth_in_the_first_call_is_a_cache():
    assert check(answered(GOOD, called(grown=[["f", "cache", 0, 1]])), answered()).findings == []


def test_a_process_that_ends():
    exiting = {"event": "exiting", "code": 0, "file": "/app/score.py", "line": 2}
    checked = check(Ended("exited with code 0", [exiting]))
    (found,) = checked.findings
    assert (found.kind.name, found.message) == ("run-crashes", "the process called os._exit(0)")
    assert checked.is_server_lost
    (crash,) = check(answered(), Ended("was killed by signal 11 (SIGSEGV)", [])).findings
    assert (crash.kind.name, crash.place) == ("run-crashes", Place("/app/a.py", 1))


def test_a_call_that_hangs():
    checked = check(Hung([]))
    assert names(checked.findings) == ["run-hangs"]
    assert checked.is_server_lost


def test_budgets():
    (found,) = check(answered(), answered(), budget_ms=1.0).findings
    assert (found.kind.name, found.message) == ("too-slow", "run() took 2.0 ms, and may take 1 ms (--budget_ms)")
    assert detection.of_memory(100_000_000, 200) == []
    (large,) = detection.of_memory(300_000_000, 200)
    assert (large.kind.name, large.step) == ("too-large", findings.MEMORY)
