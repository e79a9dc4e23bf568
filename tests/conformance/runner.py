"""Runs cases on the reference and the candidate, several at a time, and compares what they did.

Owns the order of things: start both servers of a case, send each check to both, stop, compare,
report. Command line: `--reference PYTHON --candidate PYTHON` (interpreters of virtual
environments), `--section`, `--case`, `--self-check` (reference against itself, no known
differences), `--recorded` (reuse what the reference did), `--write-docs` and `--check`. Exit code 0
means no unexpected difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from conformance import cases, client, compare, normalise, report
from conformance.cases import Case, Check
from conformance.report import Result
from conformance.server import Server, ServerProblem, WarmStart, environment, imported_modules

KNOWN = cases.FOLDER / "known_differences.toml"
PAGE = cases.FOLDER.parents[1] / "docs" / "compatibility.md"
THREADS = 4
Observations = dict[str, dict[str, str]]


@dataclass
class Suite:
    """One run: the two interpreters, the known differences, and observations of the reference that
    are used again."""

    reference: str
    candidate: str
    entries: list[compare.Entry]
    # Starts the reference; None if each server is started by a new interpreter.
    warm: WarmStart | None = None
    recorded: dict[str, Observations] = field(default_factory=dict)

    def run(self, chosen: Sequence[Case]) -> list[Result]:
        """Results of all cases, in order, `THREADS` cases at a time."""
        with ThreadPoolExecutor(THREADS) as pool:
            return [result for results in pool.map(self._case, chosen) for result in results]

    def _case(self, case: Case) -> list[Result]:
        """Run one case. If it has an unexpected difference, run it again, because on a busy machine the first result
        may be chance. A new interpreter starts the reference then, so no failure comes from ``warm``. If the reference
        is compared with itself, ``warm`` is what is checked, and starts it again."""
        results = self._attempt(case, self.warm)
        if not any(result.failed for result in results):
            return results
        return self._attempt(case, self.warm if self.reference == self.candidate else None, reuse=False)

    def _attempt(self, case: Case, warm: WarmStart | None, reuse: bool = True) -> list[Result]:
        key = f"{case.id} {hashlib.sha256((repr(case) + _rules()).encode()).hexdigest()}"
        with (
            tempfile.TemporaryDirectory(prefix="conform-", ignore_cleanup_errors=True) as folder,
            ExitStack() as started,
        ):
            # The folders have names of the same length, so that bodies with paths have equal
            # lengths. Both servers start before one is asked.
            interpreters = (
                {"2": self.candidate} if reuse and key in self.recorded else {"1": self.reference, "2": self.candidate}
            )
            servers = {
                name: started.enter_context(Server(case, python, Path(folder, name), warm if name == "1" else None))
                for name, python in interpreters.items()
            }
            if "1" in servers:
                observed = _observe(case, servers["1"])
                if not any("problem" in facets for facets in observed.values()):
                    self.recorded[key] = observed
            else:
                observed = self.recorded[key]
            return _results(case, observed, _observe(case, servers["2"]), self.entries)


def _rules() -> str:
    """A digest of everything but the case that observations depend on. If it changes, stored
    observations are not used."""
    return "".join(
        (cases.FOLDER / name).read_text("utf-8")
        for name in ("normalise.py", "client.py", "server.py", "runner.py", "warm_start.py")
    )


def _results(
    case: Case, reference: Observations, candidate: Observations, entries: list[compare.Entry]
) -> list[Result]:
    results = []
    for name in reference:
        left, right = dict(reference[name]), dict(candidate.get(name, {"problem": "was not reached"}))
        result = Result(f"{case.id}/{name}", case.section, left.pop("request", ""))
        right.pop("request", "")
        problems = [
            f"{who}: {side['problem']}"
            for who, side in (("reference", left), ("candidate", right))
            if "problem" in side
        ]
        result.problem = "\n".join(problems)
        if not problems:
            result.differences = compare.differences(result.check, left, right, entries)
        results.append(result)
    return results


def _observe(case: Case, server: Server) -> Observations:
    """Observe one server: its behaviour by check id. If the server fails, each check that was not
    reached gets a problem."""
    context = normalise.Context(server.directory, server.environment_root, server.port, server.health_port)
    observed: Observations = {}
    try:
        if case.exit:
            observed["exit"] = _exit(case, server, context)
            return observed
        server.wait_ready()
        start = normalise.log_lines(server.new_output("stdout"), context, banner=case.startup)
        errors = normalise.stderr_lines(server.new_output("stderr"), context)
        if case.startup:
            observed["startup"] = {"startup": "\n".join(start)}
            if case.stderr:
                observed["startup"]["stderr"] = "\n".join(errors)
        for check in case.checks:
            if "write" in check.fields:
                server.write_file(check.fields["write"]["path"], check.fields["write"]["text"])
            else:
                observed[check.id] = _check(case, check, server, context)
        if case.stop:
            observed["stop"] = _stop(case, server)
    except (ServerProblem, OSError) as error:
        for name in case.comparison_names:
            observed.setdefault(name, {"problem": f"{type(error).__name__}: {error}"})
    return observed


def _check(case: Case, check: Check, server: Server, context: normalise.Context) -> dict[str, str]:
    request = check.request(server.port, server.directory)
    port = server.health_port if check.option("on") == "health" else server.port
    if check.option("until_close"):
        replies = client.exchange_all(port, request, check.method())
    else:
        replies = client.exchange(port, request, check.method(), shutdown=bool(check.option("shutdown")))
    facets = normalise.reply_facets(
        replies, context, descriptions=bool(check.option("descriptions")), chunks=bool(check.option("chunks"))
    )
    if check.option("log", case.log):
        server.settle()
        lines = [
            line for line in normalise.log_lines(server.new_output("stdout"), context) if "version=mark-" not in line
        ]
        facets["log"] = "\n".join(_lengths(lines, facets))
        if case.stderr:
            facets["stderr"] = "\n".join(normalise.stderr_lines(server.new_output("stderr"), context))
    facets = {name: text for name, text in facets.items() if name not in check.ignore}
    facets["request"] = request[:600].decode("latin-1")
    return facets


def _lengths(lines: list[str], facets: dict[str, str]) -> list[str]:
    """Remove the length from the log line of a swagger request, because it depends on the words of
    the document."""
    if "«words»" not in facets.get("body", "") and "HEAD /swagger" not in "".join(lines):
        return lines
    return [line.rsplit(" ", 1)[0] if "«ms»" in line else line for line in lines]


def _exit(case: Case, server: Server, context: normalise.Context) -> dict[str, str]:
    facets = {"exit": str(server.wait_exit())}
    stdout, stderr = server.new_output("stdout"), server.new_output("stderr")
    facets["log"] = "\n".join(normalise.log_lines(stdout, context))
    facets["stdout"] = "\n".join(normalise.log_lines(stdout, context, banner=True))
    facets["stderr"] = "\n".join(normalise.stderr_lines(stderr, context))
    facets["stderr_last"] = facets["stderr"].strip().rsplit("\n", 1)[-1]
    return {name: text for name, text in facets.items() if name in case.compare}


def _stop(case: Case, server: Server) -> dict[str, str]:
    server.send_signal(case.stop)
    return {"exit": str(server.wait_exit(15.0))}


def select(everything: Sequence[Case], sections: Sequence[str], names: Sequence[str]) -> list[Case]:
    """The cases that are in one of ``sections``, or whose id begins with one of ``names``."""
    return [
        case
        for case in everything
        if (not sections or case.section in sections) and (not names or case.id.startswith(tuple(names)))
    ]


def page_text() -> str:
    """The compatibility page as it should be."""
    everything = cases.load()
    return report.page(compare.load(KNOWN), len(everything), sum(len(case.comparison_names) for case in everything))


def main(arguments: Sequence[str] | None = None) -> int:
    """The main function of `python tests/conformance`. Returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.write_docs or options.check:
        return _docs(write=options.write_docs)
    reference = os.path.abspath(options.reference)
    candidate = reference if options.self_check else os.path.abspath(options.candidate)
    try:
        same_environment(reference, candidate)
    except ServerProblem as problem:
        print(f"conformance: {problem}", file=sys.stderr)
        return 2
    entries = [] if options.self_check else compare.load(KNOWN)
    chosen = select(cases.load(), options.section, options.case)
    started = time.monotonic()
    with WarmStart(reference, imported_modules(reference)) as warm:
        suite = Suite(reference, candidate, entries, warm, _recorded(options.recorded))
        results = suite.run(chosen)
    if options.recorded:
        Path(options.recorded).write_text(json.dumps(suite.recorded), "utf-8")
    for result in results:
        if result.failed:
            print(report.failure(result))
    print(report.table(results, time.monotonic() - started))
    stale = (
        compare.stale(entries, [result.check for result in results]) if not (options.section or options.case) else []
    )
    for problem in stale:
        print(f"known_differences.toml: {problem}")
    return 1 if stale or any(result.failed for result in results) else 0


def same_environment(reference: str, candidate: str) -> None:
    """Raise ServerProblem if the environments differ in Python or Flask, because such differences
    would look like the server's."""
    left, right = environment(reference), environment(candidate)
    different = [f"{name} {left[name]} and {right[name]}" for name in left if left[name] != right[name]]
    if different:
        raise ServerProblem(f"the two environments differ: {', '.join(different)}")


def _recorded(name: str) -> dict[str, Observations]:
    path = Path(name)
    return json.loads(path.read_text("utf-8")) if name and path.exists() else {}


def _docs(write: bool) -> int:
    text = page_text()
    if write:
        PAGE.write_text(text, "utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text("utf-8") == text:
        return 0
    print(f"{PAGE.name} is not what known_differences.toml says: run python tests/conformance --write-docs")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="conformance", description="Compare the published server with this one.")
    parser.add_argument(
        "--reference", default=".venv-reference/bin/python", help="interpreter with the published package"
    )
    parser.add_argument("--candidate", default=sys.executable, help="interpreter with this package")
    parser.add_argument("--section", action="append", default=[], help="only this section of the contract; repeatable")
    parser.add_argument("--case", action="append", default=[], help="only cases whose id starts so; repeatable")
    parser.add_argument("--recorded", default="", help="file with what the reference did earlier; used and extended")
    parser.add_argument("--self-check", action="store_true", help="compare the reference with itself")
    parser.add_argument("--write-docs", action="store_true", help="write docs/compatibility.md and stop")
    parser.add_argument("--check", action="store_true", help="check that docs/compatibility.md is up to date and stop")
    return parser
