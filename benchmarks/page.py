"""Writes docs/performance.md: the targets, every scenario's table, the machine and the method.

Owns the page's words and layout; ``plots.py`` draws, ``targets.py`` judges, ``notes.toml`` has what
is to be said about targets that are not met. ``render`` is pure: the same figures and notes give
the same page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .candidates import CANDIDATES, OURS
from .results import Results, Spread
from .scenarios import INSTALL, INSTALL_COLUMNS, SCENARIOS, Column
from .targets import TARGETS, Check, Target

NOTES = Path(__file__).resolve().with_name("notes.toml")
PLOTS = "performance"
# The drawing for each scenario.
PLOT_OF = {
    "trivial": (
        ("trivial", "Requests per second and latency of each server"),
        ("connections", "The same by connections"),
    ),
    "numbers-10mb": (("large", "Large bodies: times as fast as the published server"),),
    "scaling": (("scaling", "Requests per second by workers"),),
    "memory": (("start-and-memory", "Time to start, and memory, of each server"),),
}
# The packages whose versions the page shows. The file with the figures has all.
MAIN_PACKAGES = ("azureml-inference-server-http", "gunicorn", "granian", "mosec", "fastapi", "uvicorn", "litserve",
                 "bentoml", "actix-web", "Flask", "numpy", "scikit-learn")  # fmt: skip

OPENING = """\
# Performance

<!-- Written by `make bench` from benchmarks/results/latest.json. Its words: page.py, scenarios.py, targets.py,
     candidates.py and notes.toml in benchmarks/. -->

This server beside the published 1.5.1, other servers for models, and a bare HTTP server as the limit of what is
possible ([who they are](#servers)). Everything here was measured in one run on one machine, the servers in turns. Read
the ratios: absolute figures belong to the machine.

A figure is the median over the rounds, with the lowest and the highest round in brackets if they look different. How
it was measured stands [below](#method); [benchmarks/README.md](../benchmarks/README.md) says how to do it again.
"""

METHOD = """\
- In each of {rounds} rounds every scenario is measured, and in each scenario every server, one after the other. The
  order of servers turns by one from round to round. A measurement takes {seconds:g} s, after a short one that does not
  count; six times that where requests come at random moments.
- Each server is started anew for each scenario, with its own defaults: of its settings, only script, port, number of
  workers and what is [named below](#servers) are given. What it prints goes to a file, the same kind of place for all;
  so default logging is on, as noted for each server below. One answer of each is compared with what it should be
  before anything counts.
- The load comes from wrk {wrk} with one thread, on the same machine and the same {cores} cores. It takes its share of
  them, which a fast server feels more than a slow one. wrk times a request from when it is sent: for a server that
  closes connections, as the published one does, connecting is not in its latency, but it is in its requests per second.
- Large bodies come from a client with one connection, which it keeps if the server does; if not, connecting is in the
  time. Requests at random moments each come on a connection of their own.
- A ratio is that of the medians; the range beside it is that of the ratios in single rounds.
- Scenarios that take long, or what a server does not offer, are measured with fewer servers.
- Servers other than the published one get adapters of a few lines (`benchmarks/peers/`) that call the same scripts.
  They call `run()` once at a time in each worker, as this server does.
"""


def write(results: Results, path: Path) -> None:
    """The page, and its drawings in a folder beside it."""
    from . import plots

    path.parent.mkdir(parents=True, exist_ok=True)
    plots.write(results, path.parent / PLOTS)
    path.write_text(render(results, read_notes()), "utf-8")


def read_notes() -> dict[str, str]:
    """Read the remarks about targets, by their keys."""
    try:
        import tomllib
    except ImportError:  # Python 3.10 and older; benchmarks/requirements.txt brings the same under its old name.
        import tomli as tomllib
    return {key: entry["text"].strip() for key, entry in tomllib.loads(NOTES.read_text("utf-8")).items()}


def render(results: Results, notes: Mapping[str, str]) -> str:
    """Make the text of the page."""
    parts = [OPENING, "\n## Targets\n\n", _summary(results), *_targets(results, notes)]
    for key, scenario in SCENARIOS.items():
        rows = _rows(results, key, scenario.columns, scenario.candidates)
        if rows:
            parts += [f"\n## {scenario.title}\n\n{scenario.text}\n\n", *rows, *_plots(key), *_remark(results, key)]
    rows = _rows(results, INSTALL, INSTALL_COLUMNS, CANDIDATES)
    if rows:
        parts += [
            "\n## Installation\n\nWhat `pip install` of the server alone puts into an empty environment.\n\n",
            *rows,
        ]
    parts += ["\n## Method\n\n", METHOD.format(rounds=results.rounds, seconds=results.seconds, **results.machine)]
    parts += ["\n### Machine\n\n", *_machine(results), "\n### Servers\n\n", *_servers(results)]
    if results.left_out:
        parts += ["\n### Left out\n\n", *(f"- {reason}\n" for reason in results.left_out)]
    return "".join(parts)


def figure(spread: Spread | None, form: str) -> str:
    """``1,234 (1,200 to 1,300)``; without the brackets if there was one round or they say
    nothing."""
    if spread is None:
        return "-"
    median, low, high = (format(value, form) for value in (spread.median, spread.low, spread.high))
    return median if low == high else f"{median} ({low} to {high})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown, figures to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(row)} |\n" for row in (head, rule, *rows)]


# ---- Targets


def _targets(results: Results, notes: Mapping[str, str]) -> list[str]:
    rows, remarks = [], []
    for target in TARGETS:
        rows += [_target_row(results, target, check) for check in target.checks]
        if target.key in notes:
            remarks.append(f"\n**{_outcome(results, target)}.** {notes[target.key]}\n")
    # Remarks about targets that were not met come first.
    remarks.sort(key=lambda remark: not remark.startswith("\n**Not met"))
    return table(("what", "figure", "target", "measured", "outcome"), rows) + remarks


def _summary(results: Results) -> str:
    """One or two sentences: how many targets were met, and which were not."""
    checks = [(target, check, check.figure(results)) for target in TARGETS for check in target.checks]
    measured = [(target, check, check.is_met(spread)) for target, check, spread in checks if spread is not None]
    missed = [f"{target.what} ({_label(check)})" for target, check, is_met in measured if not is_met]
    met = len(measured) - len(missed)
    told = f" Not met: {'; '.join(missed)}." if missed else ""
    return f"Of {len(measured)} figures that were measured, {met} meet their target, by the median.{told}\n\n"


def _outcome(results: Results, target: Target) -> str:
    """The result of a target: its name, and the checks that were not met if others were."""
    spreads = [(check, check.figure(results)) for check in target.checks]
    measured = [(check, check.is_met(spread)) for check, spread in spreads if spread is not None]
    if not measured:
        return f"Not measured: {target.what}"
    missed = [_label(check) for check, is_met in measured if not is_met]
    if not missed:
        return f"Met: {target.what}"
    return f"Not met: {target.what}" + (f" ({'; '.join(missed)})" if len(missed) < len(target.checks) else "")


def _target_row(results: Results, target: Target, check: Check) -> list[str]:
    spread = check.figure(results)
    outcome = "not measured" if spread is None else "met" if check.is_met(spread) else "**not met**"
    what = target.what if check is target.checks[0] else ""
    limit = f"{check.limit:g}"
    return [what, _label(check), f"{check.bound} {limit}", figure(spread, check.form), outcome]


def _label(check: Check) -> str:
    if not check.reference:
        return check.label
    name = CANDIDATES[check.reference].name
    ratio = f"{'times as fast as' if check.as_speed else 'times that of'} {name}"
    return f"{check.label}, {ratio}" if check.label else ratio


# ---- Scenarios


def _rows(results: Results, key: str, columns: Sequence[Column], candidates: Iterable[str]) -> list[str]:
    measured = results.candidates_in(key)
    rows = [
        [CANDIDATES[name].name, *(figure(results.spread(key, column.value, name), column.form) for column in columns)]
        for name in candidates
        if name in measured
    ]
    return table(["", *(column.title for column in columns)], rows) if rows else []


def _plots(key: str) -> list[str]:
    return [f"\n![{title}]({PLOTS}/{name}.svg)\n" for name, title in PLOT_OF.get(key, ())]


def _remark(results: Results, key: str) -> list[str]:
    """Remarks that need figures of another scenario."""
    ceiling = results.spread("trivial", "c64.rps", OURS)
    if key != "scaling" or ceiling is None:
        return []
    told = figure(ceiling, ",.0f")
    return [
        f"\nThe ceiling is that of the front's one thread: it passed on {told} requests/s of a `run()` that does "
        "nothing, with the load generator and a worker on the same cores.\n"
    ]


# ---- Method


def _machine(results: Results) -> list[str]:
    names = {
        "date": "date", "cpu": "processor", "cores": "cores", "memory_gib": "memory, GiB", "kernel": "kernel",
        "python": "Python", "rust": "Rust", "wrk": "wrk", "load_average": "load average at the start",
    }  # fmt: skip
    return table(("", ""), [[name, str(results.machine[key])] for key, name in names.items() if key in results.machine])


def _servers(results: Results) -> list[str]:
    rows = []
    for key, candidate in CANDIDATES.items():
        versions = results.versions.get(key)
        if versions is not None:
            told = ", ".join(f"{name} {versions[name]}" for name in MAIN_PACKAGES if name in versions)
            rows.append(f"- **{candidate.name}**: {candidate.note} ({told}).\n")
    return rows
