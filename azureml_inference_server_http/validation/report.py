"""The result of a validation, for people and for pipelines: text, JSON, JUnit XML, GitHub annotations.

Owns the four formats. Pure functions from a ``Report`` to text.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from typing import Callable, NamedTuple

from ..launch import display
from .findings import ERROR, NOTE, WARNING, Finding, Place, counts

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
FORMATS = ("text", "json", "junit", "github")

_MARKS = {PASSED: "✓", FAILED: "✗", SKIPPED: "-"}
_PLAIN_MARKS = {PASSED: "ok", FAILED: "FAILED", SKIPPED: "-"}
_COLOURS = {
    **{PASSED: display.GREEN, FAILED: display.RED, SKIPPED: display.DIM},
    **{ERROR: display.RED, WARNING: display.YELLOW, NOTE: display.CYAN},
}
# What XML 1.0 cannot hold.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


# A code of ANSI colours and words: the words in that colour, or as they are.
Paint = Callable[[str, str], str]


class Step(NamedTuple):
    """One step of the check: what it was, how it ended, what there is to say about it."""

    name: str
    outcome: str
    detail: str = ""
    seconds: float | None = None
    sample: str | None = None


class Report(NamedTuple):
    """All of it. ``script`` is its path, ``folder`` the one from which places are named."""

    script: str
    folder: str
    steps: Sequence[Step]
    findings: Sequence[Finding]
    seconds: float
    # Of ``seconds``: in the script's own code.
    script_seconds: float

    @property
    def is_valid(self) -> bool:
        return not any(map(counts, self.findings))


def shown(place: Place, folder: str) -> str:
    """``score.py:12``; a file outside the folder with its whole path."""
    path = relative(place.file, folder)
    return path if place.line is None else f"{path}:{place.line}"


def relative(file: str, folder: str) -> str:
    """The path from the folder, if the file is in it."""
    path = os.path.relpath(file, folder)
    return file if path.startswith("..") else path


def of_step(step: Step, findings: Iterable[Finding]) -> list[Finding]:
    """The findings of this step."""
    if step.sample is not None:
        return [found for found in findings if found.sample == step.sample]
    return [found for found in findings if found.step == step.name and found.sample is None]


# ---- Text


def text(report: Report, colours: bool, marks: bool) -> str:
    """For people. ``marks``: whether the terminal can show them; words otherwise."""

    def paint(code: str, words: str) -> str:
        return display.painted(words, code, colours)

    lines = []
    width = max((len(_label(step)) for step in report.steps), default=0)
    for step in report.steps:
        mark = (_MARKS if marks else _PLAIN_MARKS)[step.outcome]
        mark = paint(_COLOURS[step.outcome], mark if marks else f"{mark:6}")
        detail = f"  {paint(display.DIM, _printable(step.detail))}" if step.detail else ""
        lines.append(f"{mark} {_label(step):{width if detail else 0}}{detail}")
    for found in report.findings:
        lines += ["", *_finding_lines(found, report.folder, paint)]
    lines += ["", _verdict(report, paint)]
    return "\n".join(lines) + "\n"


def _label(step: Step) -> str:
    return f"sample {_printable(step.sample)}" if step.sample is not None else step.name


def _finding_lines(found: Finding, folder: str, paint: Paint) -> list[str]:
    where = f"{shown(found.place, folder)}: " if found.place else ""
    sample = f" (sample {found.sample})" if found.sample else ""
    head = f"{paint(display.BOLD, where)}{paint(_COLOURS[found.kind.severity], f'{found.kind.code} {found.kind.name}')}"
    lines = [f"{head}{sample}", f"  {_printable(found.message)}"]
    lines += [paint(display.DIM, f"  | {_printable(line)}") for line in found.traceback.splitlines()]
    lines.append(f"  {_plain(found.kind.remedy)}")
    return lines


def _printable(words: str) -> str:
    """Without what could steer a terminal: messages of exceptions may hold anything."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in words)


def _plain(words: str) -> str:
    return words.replace("`", "")


def _verdict(report: Report, paint: Paint) -> str:
    time = f"{report.seconds:.2f} s, of which {report.script_seconds:.2f} s in the script"
    name = relative(report.script, report.folder)
    number = sum(map(counts, report.findings))
    if number == 0:
        return paint(_COLOURS[PASSED], f"{name} is valid") + f" ({time})."
    return (
        paint(_COLOURS[FAILED], f"{name} has {number} finding{'s' * (number > 1)}")
        + f" ({time}). azmlinfsrv validate --explain CODE tells more about one."
    )


# ---- JSON


def as_json(report: Report) -> str:
    """For programs."""
    document = {
        "version": 1,
        "valid": report.is_valid,
        "script": report.script,
        "seconds": round(report.seconds, 4),
        "script_seconds": round(report.script_seconds, 4),
        "steps": [
            {
                "name": step.name,
                "sample": step.sample,
                "outcome": step.outcome,
                "detail": step.detail,
                "seconds": step.seconds,
            }
            for step in report.steps
        ],
        "findings": [
            {
                "code": found.kind.code,
                "name": found.kind.name,
                "severity": found.kind.severity,
                "message": found.message,
                "remedy": _plain(found.kind.remedy),
                "file": found.place.file if found.place else None,
                "line": found.place.line if found.place else None,
                "step": found.step,
                "sample": found.sample,
                "traceback": found.traceback or None,
            }
            for found in report.findings
        ],
    }
    return json.dumps(document, indent=2) + "\n"


# ---- JUnit


def junit(report: Report) -> str:
    """JUnit XML: a test case for each step and sample, a failure for its findings."""
    script = relative(report.script, report.folder)
    cases = []
    failures = skipped = 0
    for step in report.steps:
        found = [each for each in of_step(step, report.findings) if counts(each)]
        inside = ""
        if found:
            failures += 1
            message = "; ".join(f"{each.kind.code} {each.kind.name}: {each.message}" for each in found)
            details = "\n\n".join("\n".join(_finding_lines(each, report.folder, _unpainted)) for each in found)
            attributes = f"message={_attribute(message)} type={_attribute(found[0].kind.code)}"
            inside = f"<failure {attributes}>{_xml(details)}</failure>"
        elif step.outcome == SKIPPED:
            skipped += 1
            inside = f"<skipped message={_attribute(step.detail or 'an earlier step failed')}/>"
        place = next((each.place for each in found if each.place), None)
        file = f" file={_attribute(relative(place.file, report.folder) if place else script)}"
        line = f' line="{place.line}"' if place and place.line else ""
        cases.append(
            f"    <testcase classname={_attribute(script)} name={_attribute(_label(step))}{file}{line} "
            f'time="{step.seconds or 0:.3f}">{inside}</testcase>'
        )
    numbers = f'tests="{len(cases)}" failures="{failures}" errors="0" skipped="{skipped}" time="{report.seconds:.3f}"'
    return "\n".join(
        [
            '<?xml version="1.0" encoding="utf-8"?>',
            f'<testsuites name="azmlinfsrv validate" {numbers}>',
            f"  <testsuite name={_attribute(script)} {numbers}>",
            *cases,
            "  </testsuite>",
            "</testsuites>",
            "",
        ]
    )


def _unpainted(code: str, words: str) -> str:
    return words


def _xml(words: str) -> str:
    words = _NO_XML.sub("\ufffd", words)
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _attribute(words: str) -> str:
    # Line ends as references, because parsers make blanks of them.
    quoted = _xml(words).replace('"', "&quot;").replace("\n", "&#10;").replace("\r", "&#13;").replace("\t", "&#9;")
    return f'"{quoted}"'


# ---- GitHub


def github(report: Report) -> str:
    """Workflow commands of GitHub Actions, which become annotations at the line, then the verdict."""
    lines = []
    for found in report.findings:
        command = "notice" if found.kind.severity == NOTE else found.kind.severity
        properties = {}
        if found.place:
            properties["file"] = relative(found.place.file, report.folder)
            if found.place.line:
                properties["line"] = str(found.place.line)
        properties["title"] = f"{found.kind.code} {found.kind.name}"
        named = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        sample = f" (sample {found.sample})" if found.sample else ""
        parts = [found.message + sample, *([found.traceback] if found.traceback else []), _plain(found.kind.remedy)]
        lines.append(f"::{command} {named}::{_data(chr(10).join(parts))}")
    return "\n".join([*lines, _verdict(report, _unpainted), ""])


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    return _data(words).replace(":", "%3A").replace(",", "%2C")


def render(report: Report, format: str, colours: bool, marks: bool) -> str:
    """The report in one of ``FORMATS``."""
    if format == "text":
        return text(report, colours, marks)
    return {"json": as_json, "junit": junit, "github": github}[format](report)
