"""``python -m benchmarks``: installs the candidates, measures them in turns, writes figures and
page.

Owns the order: in each round every scenario, in each scenario every candidate, so that what changes
on the machine in the meantime touches all alike; the order of candidates turns by one each round. A
measurement that fails is told and left out, and the run goes on. README.md says how to run it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from . import environments, load, machine, page
from .candidates import CANDIDATES, REFERENCE, Candidate
from .environments import FOLDER, MODEL, ROOT, CannotInstall, Installed
from .load import LoadFailed, Request
from .measure import Bench
from .results import Results, Sample
from .scenarios import INSTALL, SCENARIOS, Scenario
from .server import ServerFailed, Work

COMMITTED = ROOT / "benchmarks" / "results" / "latest.json"
PAGE = ROOT / "docs" / "performance.md"
MIB = 1 << 20


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.page:
        page.write(Results.load(COMMITTED), PAGE)
        return 0
    load.find_wrk()
    scenarios = [SCENARIOS[key] for key in options.only or SCENARIOS]
    keys = options.candidates or list(CANDIDATES)
    whole = not (options.only or options.candidates or options.candidate)
    results = Results(machine.description(), 0, options.seconds)
    installed = _install([CANDIDATES[key] for key in keys], options.candidate, results)
    # The figures of a partial run must not replace those of a complete run.
    figures, target = (
        (COMMITTED, PAGE) if whole else (FOLDER / "partial" / "results.json", FOLDER / "partial" / "page.md")
    )
    for number in range(options.rounds):
        for scenario in scenarios:
            for candidate in _in_turn([CANDIDATES[key] for key in scenario.candidates if key in installed], number):
                _measure(scenario, candidate, installed[candidate.key], number, results)
        results.rounds = number + 1
        results.save(figures)
    page.write(results, target)
    print(f"Figures: {figures}\nPage: {target}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: 5)")
    parser.add_argument("--seconds", type=float, default=3, help="length of one measurement (default: 3)")
    parser.add_argument("--only", type=_names(SCENARIOS), help="these scenarios only, separated by commas")
    parser.add_argument("--candidates", type=_names(CANDIDATES), help="these servers only, separated by commas")
    parser.add_argument("--candidate", type=Path, metavar="PYTHON", help="an interpreter that has this server already")
    parser.add_argument("--page", action="store_true", help="measure nothing: write the page from the last full run")
    return parser


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return names

    return parse


def _install(candidates: Sequence[Candidate], given: Path | None, results: Results) -> dict[str, Installed]:
    installed = {}
    for candidate in candidates:
        try:
            found = environments.prepare(candidate, given)
        except CannotInstall as reason:
            _leave_out(results, f"{candidate.name}: {reason}")
            continue
        installed[candidate.key] = found
        results.versions[candidate.key] = found.versions
        if found.packages:
            values = {"packages": found.packages, "mib": found.bytes / MIB}
            results.samples.append(Sample(INSTALL, candidate.key, 0, values))
    if REFERENCE in installed:
        environments.train_example(installed[REFERENCE].bin / "python")
    return installed


def _in_turn(candidates: Sequence[Candidate], number: int) -> Iterator[Candidate]:
    """All candidates, with another one first in each round."""
    for index in range(len(candidates)):
        yield candidates[(index + number) % len(candidates)]


def _measure(scenario: Scenario, candidate: Candidate, installed: Installed, number: int, results: Results) -> None:
    bench = _bench(scenario, candidate, installed, results.seconds, number)
    try:
        values = scenario.measure(bench)
    except Exception as problem:
        # An error of one server must not end the run, which takes more than an hour.
        known = isinstance(problem, (LoadFailed, ServerFailed))
        reason = str(problem) if known else f"{type(problem).__name__}: {problem}"
        _leave_out(results, f"{candidate.name} in “{scenario.title}”: {reason}")
        return
    results.samples.append(Sample(scenario.key, candidate.key, number, values))
    told = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    print(f"round {number + 1}, {scenario.key}, {candidate.key}: {told}", flush=True)


def _bench(scenario: Scenario, candidate: Candidate, installed: Installed, seconds: float, number: int) -> Bench:
    folder = ROOT if "/" in scenario.script else ROOT / "benchmarks" / "scripts"
    work = Work(
        folder / scenario.script,
        call=scenario.call,
        reply=scenario.payload.reply_file(),
        environment={"AZUREML_MODEL_DIR": str(MODEL), **dict(scenario.environment)},
    )
    payload = scenario.payload
    request = Request(payload.file(), scenario.content_type, payload.path, payload.headers)
    return Bench(candidate, installed, work, request, scenario.payload.is_right, seconds, number)


def _leave_out(results: Results, reason: str) -> None:
    print(f"left out: {reason}", file=sys.stderr, flush=True)
    if reason not in results.left_out:
        results.left_out.append(reason)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
