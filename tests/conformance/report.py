"""What people read: the table of a run, the text of unexpected differences, and
docs/compatibility.md.

Formats only; decides nothing. The page is made from known_differences.toml alone, so it can be made
and checked without either server.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from conformance.compare import KINDS, Difference, Entry

SECTIONS = {
    "1": "command line", "2": "output at start", "3": "configuration", "4": "script loading", "5": "routes",
    "6": "input", "7": "output", "8": "errors and timeouts", "9": "request ids", "10": "request_headers",
    "11": "raw requests", "12": "CORS", "13": "logging", "14": "swagger", "15": "schemas",
    "16": "processes", "18": "protocol edge",
    "scripts": "scripts as people write them",
}  # fmt: skip
HEADINGS = {
    "decided": "Decided differences",
    "improvement": "Works here, failed there",
    "not-reproduced": "Not reproduced",
}


@dataclass
class Result:
    """The result of comparing one check. `problem` is set if a server could not be asked."""

    check: str
    section: str
    request: str = ""
    differences: list[Difference] = field(default_factory=list)
    problem: str = ""

    @property
    def failed(self) -> bool:
        """True if a difference is not in the list of known differences."""
        return bool(self.problem) or any(difference.entry is None for difference in self.differences)


def table(results: list[Result], seconds: float) -> str:
    """The text of a table: the sections with their counts, and the totals."""
    lines = [f"{'section':34}{'cases':>7}{'checks':>8}{'equal':>7}{'known':>7}{'unexpected':>12}"]
    order = list(SECTIONS)
    sections = sorted({result.section for result in results}, key=order.index)
    for section in sections:
        rows = [result for result in results if result.section == section]
        label = section if section == "scripts" else f"{section:>2} {SECTIONS[section]}"
        lines.append(f"{label:34}{_counts(rows)}")
    lines.append(f"{'all':34}{_counts(results)}   {seconds:.0f} s")
    return "\n".join(lines)


def _counts(results: list[Result]) -> str:
    cases = len({result.check.split("/")[0] for result in results})
    failed = sum(result.failed for result in results)
    equal = sum(not result.failed and not result.differences for result in results)
    known = len(results) - failed - equal
    return f"{cases:>7}{len(results):>8}{equal:>7}{known:>7}{failed:>12}"


def failure(result: Result) -> str:
    """The text of one unexpected result: the request, and each facet as a diff (- reference, +
    candidate)."""
    lines = [f"=== {result.check}", *(f"    > {line}" for line in result.request.splitlines())]
    if result.problem:
        lines += [f"    {line}" for line in result.problem.splitlines()[-40:]]
    for difference in result.differences:
        if difference.entry is None:
            lines.append(f"  {difference.facet} {difference.note}".rstrip())
            lines += [f"    {line}" for line in _diff(difference.reference, difference.candidate)]
    return "\n".join(lines)


def _diff(reference: str, candidate: str) -> Iterable[str]:
    lines = list(difflib.unified_diff(reference.split("\n"), candidate.split("\n"), lineterm="", n=2))[2:]
    return [line if len(line) < 400 else f"{line[:300]} … {line[-90:]}" for line in lines if not line.startswith("@@")]


def page(entries: list[Entry], cases: int, checks: int) -> str:
    """The text of docs/compatibility.md."""
    lines = [
        "# Compatibility with azureml-inference-server-http 1.5.1",
        "",
        "<!-- Generated from tests/conformance/known_differences.toml by `python tests/conformance --write-docs`. -->",
        "",
        f"The conformance suite (`make conform`) runs {cases} server configurations with {checks} checks on the",
        "published 1.5.1 and on this server and compares status, headers, body bytes, log lines, start-up text and",
        "exit codes. Whatever differs must be listed here; an entry that no longer differs fails the suite as well.",
        "Dates, ids, ports, paths, versions, timings, the order and case of header names, the frames of a traceback",
        "that are not in the user's files and the wording of swagger descriptions are not compared.",
        "",
    ]
    for kind in KINDS:
        chosen = [entry for entry in entries if entry.kind == kind]
        lines += [f"## {HEADINGS[kind]}", ""]
        for entry in chosen:
            lines += _entry(entry)
    return "\n".join(lines).rstrip("\n") + "\n"


def _entry(entry: Entry) -> list[str]:
    shown = ", ".join(f"`{check}`" for check in entry.checks) or f"not in the suite: {entry.untested}"
    return [
        f"### {entry.title}",
        "",
        f"- 1.5.1: {entry.published}",
        f"- here: {entry.here}",
        f"- why: {entry.reason}",
        f"- checks: {shown}",
        "",
    ]
