"""From what happened to findings: the rules of ``azmlinfsrv validate``.

Owns which event, reply or end of a process is which finding, and how it is told. Events come from ``probe.py``. Pure
functions: they start, send and print nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..scripting import own_files, traps
from . import findings
from .comparing import Answer, Difference, told
from .findings import BY_NAME, Finding, Place
from .samples import Sample

Event = Mapping[str, Any]

MODEL_DIR = "AZUREML_MODEL_DIR"
# The step of the start, as the worker names it, by the step of the report.
STEPS = {"import": findings.IMPORT, "init": findings.INIT, "swagger": findings.SWAGGER}
_HANGS = {findings.IMPORT: "import-hangs", findings.INIT: "init-hangs", findings.SAMPLE: "run-hangs"}
_CRASHES = {findings.IMPORT: "import-crashes", findings.INIT: "init-crashes", findings.SAMPLE: "run-crashes"}
_FRAME = re.compile(r'  File "(?P<file>.*)", line (?P<line>\d+)')


class Stack(NamedTuple):
    """The newest stack in the log: of a process that crashed, or that took too long."""

    reason: str
    place: Place | None


def place_in(event: Event) -> Place | None:
    """The user's line that an event or its error names."""
    return Place(event["file"], event.get("line")) if event.get("file") else None


# ---- The start


def of_failure(event: Event, step: str, model_dir: str | None, listing: str = "", script: str | None = None) -> Finding:
    """Why the script cannot be served: an event "failed". ``listing``: what is in the model's folder; ``script``: its
    file, the place of what has no line."""
    error = event["error"]
    place, traceback = place_in(error), error["traceback"]
    message = _of_error(error)
    if event["kind"] == "LogConfigError":
        return Finding(BY_NAME["settings-file-unusable"], error["message"], findings.SETTINGS, place)
    if event["kind"] == "UserScriptError":
        name, message = _refusal(error["message"]), error["message"]
        return Finding(BY_NAME[name], message, findings.SIGNATURES, place or (Place(script, None) if script else None))
    if event["kind"] in ("SwaggerError", "DebuggerError"):
        name = "swagger-failed" if event["kind"] == "SwaggerError" else "setting-refused"
        return Finding(BY_NAME[name], error["message"], step, place)
    name = _name_of_error(error, step, model_dir)
    if name == "model-file-missing":
        message += listing
    elif name == "module-not-found" and event.get("beside"):
        name = "module-beside-script"
    return Finding(BY_NAME[name], message, step, place, traceback=traceback)


def _name_of_error(error: Event, step: str, model_dir: str | None) -> str:
    bases = error["bases"]
    if _is_about_model_dir(error, model_dir):
        return "model-dir-not-set"
    if "SystemExit" in bases:
        return "script-exits"
    if "SyntaxError" in bases:
        return "syntax-error"
    if "ModuleNotFoundError" in bases:
        return "module-not-found"
    if step == findings.IMPORT:
        return "import-failed"
    return "model-file-missing" if "FileNotFoundError" in bases else "init-failed"


def _is_about_model_dir(error: Event, model_dir: str | None) -> bool:
    if model_dir:
        return False
    if "KeyError" in error["bases"]:
        return MODEL_DIR in str(error["message"])
    return "TypeError" in error["bases"] and "os.PathLike object, not NoneType" in error["message"]


def _refusal(message: str) -> str:
    match = re.search(r"does not have a (init|run)\(\) function", message)
    return f"no-{match[1]}" if match else "signature-refused"


def _of_error(error: Event) -> str:
    text = f"{error['type']}: {error['message']}" if error["message"] else error["type"]
    return text.splitlines()[0] if text else text


def of_loaded(event: Event) -> list[Finding]:
    """Functions that the server calls and whose code does not run: an event "loaded"."""
    found = []
    for function, name in (("run", "run-not-awaited"), ("init", "init-not-awaited")):
        kind, place = event[f"{function}_is"], event[function]
        if kind:
            found.append(
                Finding(
                    BY_NAME[name],
                    f"{function}() is {kind}, and the server only calls it",
                    findings.SIGNATURES,
                    Place(*place) if place else None,
                )
            )
    return found


def of_missed(events: Iterable[Event]) -> list[Finding]:
    """Files that init() looked for in the model's folder and that are not there, although it returned."""
    return [
        Finding(BY_NAME["model-file-missed"], f"{event['path']} does not exist", findings.INIT, place_in(event))
        for event in events
        if event["event"] == "missed"
    ]


def of_lost_logging(events: Iterable[Event], step: str, sample: str | None = None) -> list[Finding]:
    """A logger of the script that writes nothing."""
    return [
        Finding(
            BY_NAME["logging-lost"],
            f"the script calls {traps.call_of_info(event['logger'])}, and the root logger is at WARNING",
            step,
            _first_call_of_info(event["files"]),
            sample,
        )
        for event in events
        if event["event"] == "lost logging"
    ]


def _first_call_of_info(files: Iterable[str]) -> Place | None:
    for file in files:
        line = _first_line(file, re.compile(r"[^#]*\.info\("))
        if line is not None:
            return Place(file, line)
    return None


def of_end(step: str, how: str, exiting: Event | None, stack: Stack | None, sample: str | None = None) -> Finding:
    """The process ended in this step. ``exiting``: the event of ``os._exit``; ``stack``: what is in the log."""
    place = stack.place if stack else None
    reason = f" ({stack.reason})" if stack else ""
    if exiting is not None:
        place, how, reason = place_in(exiting), f"called os._exit({exiting['code']})", ""
    name = _CRASHES.get(step, "import-crashes")
    return Finding(BY_NAME[name], f"the process {how}{reason}", step, place, sample)


def of_hang(step: str, seconds: float, stack: Stack | None, sample: str | None = None) -> Finding:
    """A step did not end in time."""
    what = {findings.IMPORT: "the import", findings.INIT: "init()"}.get(step, "run()")
    place = stack.place if stack else None
    at = ", at the line shown" if place else ""
    message = f"{what} has not returned after {seconds:g} s (--timeout){at}"
    return Finding(BY_NAME[_HANGS.get(step, "run-hangs")], message, step, place, sample)


def last_stack(log: str, own: Iterable[str]) -> Stack | None:
    """The last stack that Python's faulthandler wrote, and the deepest line of it in one of the folders ``own``."""
    begins = [match for match in re.finditer(r"^(?:Fatal Python error: (.*)|Timeout \(.*\)!)$", log, re.MULTILINE)]
    if not begins:
        return None
    folders = tuple(own)
    # The main thread comes last, and each stack begins with its deepest frame.
    threads = re.split(r"^(?:Current t|T)hread 0x.*$", log[begins[-1].end() :], flags=re.MULTILINE)
    for thread in reversed(threads):
        for line in thread.splitlines():
            frame = _FRAME.match(line)
            if frame and own_files.name_of(frame["file"], folders) is not None:
                return Stack(begins[-1][1] or "timeout", Place(frame["file"], int(frame["line"])))
    return Stack(begins[-1][1] or "timeout", None)


# ---- Calls


def of_call(sample: Sample, answer: Answer, event: Event | None, run: Place | None) -> list[Finding]:
    """What one answer shows by itself. ``event`` is "called" if run() was called; ``run`` where it is defined.

    A sample whose expected answer is an error is no finding when it gets that.
    """
    expects_error = sample.expected is not None and (sample.expected.status or 200) >= 400
    if event is None:
        return [] if expects_error else _not_called(sample, answer)
    if event.get("error"):
        return [] if expects_error else [_raised(sample, answer, event["error"])]
    found = [
        Finding(BY_NAME[name], detail, findings.SAMPLE, run, sample.name) for name, detail in event.get("traps", ())
    ]
    if found or expects_error or answer.status < 400:
        return found
    if answer.status == 500 and answer.headers.get("x-ms-run-function-failed") == "True" and not _is_own(answer):
        message = f"the result cannot be sent: {_message(answer)}"
        return [Finding(BY_NAME["not-renderable"], message, findings.SAMPLE, run, sample.name)]
    message = f"the script answered with status {answer.status}: {_message(answer)}"
    return [Finding(BY_NAME["error-status"], message, findings.SAMPLE, run, sample.name)]


def _is_own(answer: Answer) -> bool:
    """Whether an error is the script's own response, and not one that the server writes in its place."""
    return not _message(answer).startswith("An unexpected internal error occurred")


def _not_called(sample: Sample, answer: Answer) -> list[Finding]:
    if answer.status < 400:
        return []
    message = f"status {answer.status}: {_message(answer)}"
    return [Finding(BY_NAME["sample-refused"], message, findings.SAMPLE, _place_of(sample), sample.name)]


def _raised(sample: Sample, answer: Answer, error: Event) -> Finding:
    place = place_in(error)
    if "TimeoutError" in error["bases"] and "scoring time-out" in error["message"]:
        message = f"run() was interrupted: {_message(answer)}"
        return Finding(BY_NAME["run-hangs"], message, findings.SAMPLE, place, sample.name)
    return Finding(
        BY_NAME["run-failed"], _of_error(error), findings.SAMPLE, place, sample.name, traceback=error["traceback"]
    )


def _message(answer: Answer) -> str:
    """What an error reply says."""
    try:
        body = answer.json()
    except ValueError:
        return answer.body[:200].decode("utf-8", "replace")
    return str(body.get("message", body)) if isinstance(body, dict) else str(body)[:200]


def _place_of(sample: Sample) -> Place | None:
    return Place(sample.file, None) if sample.file else None


def of_expected(sample: Sample, found: list[Difference]) -> list[Finding]:
    """The answer differs from the expected one."""
    if not found or sample.expected is None:
        return []
    place = Place(sample.expected.file, None)
    return [Finding(BY_NAME["other-answer"], told(found), findings.SAMPLE, place, sample.name)]


def of_second_call(
    sample: Sample, first: Answer, second: Answer, event: Event | None, between: list[Difference], run: Place | None
) -> list[Finding]:
    """What the second of two equal requests shows."""
    error = (event or {}).get("error")
    if first.status < 400 <= second.status:
        why = _of_error(error) if error else _message(second)
        return [
            Finding(
                BY_NAME["second-call-fails"],
                f"the second equal request got status {second.status}: {why}",
                findings.SAMPLE,
                (place_in(error) if error else None) or run,
                sample.name,
                traceback=error["traceback"] if error else "",
            )
        ]
    found = []
    if between:
        message = f"the second of two equal requests got another answer: {told(between)}"
        found.append(Finding(BY_NAME["answers-differ"], message, findings.SAMPLE, run, sample.name))
    for file, name, before, after in (event or {}).get("grown", ()):
        message = f"{name} in {os.path.basename(file)} grew from {before} to {after} items during the second call"
        place = Place(file, _line_of(file, name))
        found.append(Finding(BY_NAME["state-grows"], message, findings.SAMPLE, place, sample.name))
    return found


def _line_of(file: str, name: str) -> int | None:
    """The first line that gives a value to this global name, or the ``def run`` with the default."""
    pattern = r"def run\b" if " " in name else rf"{re.escape(name.partition('.')[0])}\b[^=\n]*="
    return _first_line(file, re.compile(pattern))


def _first_line(file: str, pattern: re.Pattern[str]) -> int | None:
    """The number of the first line that begins with this pattern."""
    try:
        with open(file, encoding="utf-8", errors="replace") as source:
            return next((number for number, line in enumerate(source, 1) if pattern.match(line)), None)
    except OSError:
        return None


# ---- Budgets


def of_budget(sample: Sample, seconds: float, budget_ms: float | None, run: Place | None) -> list[Finding]:
    """A call that took longer than it may."""
    if budget_ms is None or seconds * 1000 <= budget_ms:
        return []
    message = f"run() took {seconds * 1000:.1f} ms, and may take {budget_ms:g} ms (--budget_ms)"
    return [Finding(BY_NAME["too-slow"], message, findings.SAMPLE, run, sample.name)]


def of_memory(peak: int, budget_mb: float) -> list[Finding]:
    """A process that became larger than it may."""
    megabytes = peak / 1e6
    if megabytes <= budget_mb:
        return []
    message = f"the process used {megabytes:.0f} MB, and may use {budget_mb:g} MB (--budget_mb)"
    return [Finding(BY_NAME["too-large"], message, findings.MEMORY)]
