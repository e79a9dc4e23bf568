"""``python -m benchmarks.plan``: the tables of docs/plan.md, from simulations of the fleets that it compares.

Owns these fleets and the words of the tables. ``fleet.py`` is the model; what a server adds to
``run()`` is the measured figure of docs/performance.md. The same figures give the same tables. Takes
a minute.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .environments import ROOT
from .fleet import Autoscaler, Fleet, Load, simulate
from .page import table as markdown
from .results import Results

PAGE = ROOT / "docs" / "plan.md"
FIGURES = ROOT / "benchmarks" / "results" / "latest.json"
RATE, RUN_MS = 10_000.0, 20.0
SEED = 20261130
# What a second may at most have: requests that took longer than this are slow.
SLOW_MS = 100.0
WAYS = {1: "one at random (kube-proxy)", 2: "the emptier of two (Ray Serve)", 1000: "the emptiest of all"}


def added_ms(results: Results) -> float:
    """What the server adds to a ``run()`` that computes."""
    spread = results.spread("busy", "added_ms", "ours")
    if spread is None:
        raise SystemExit(f"{FIGURES} has no figure of the scenario busy: make bench")
    return spread.median


def sizes(added: float) -> Iterator[list[str]]:
    """Waiting, by the size of machines and the proxy's choice."""
    yield ["288 workers as", *(f"{WAYS[choices]}: p50, p99, ms" for choices in WAYS)]
    for machines, workers in ((18, 16), (36, 8), (72, 4), (288, 1)):
        row = [f"{machines} x {workers}"]
        for choices in WAYS:
            fleet = Fleet(machines, workers, RUN_MS, added, choices)
            outcome = simulate(fleet, [Load(0, RATE)], 3, SEED)
            row.append(f"{outcome.percentile_ms(50, since=1):.0f}, {outcome.percentile_ms(99, since=1):.0f}")
        yield row


def load(added: float) -> Iterator[list[str]]:
    """How many machines of 16 workers."""
    yield ["machines", "busy workers", "p50, ms", "p99, ms", "p99 with one machine fewer, ms"]
    for machines in (14, 16, 18, 20, 24):
        row = [str(machines), f"{RATE * RUN_MS / 1000 / machines / 16:.0%}"]
        outcome = simulate(Fleet(machines, 16, RUN_MS, added, 1), [Load(0, RATE)], 4, SEED)
        row += [f"{outcome.percentile_ms(share, since=1):.0f}" for share in (50, 99)]
        fewer = simulate(Fleet(machines - 1, 16, RUN_MS, added, 1), [Load(0, RATE)], 4, SEED)
        is_too_few = (machines - 1) * 16 < RATE * RUN_MS / 1000
        row.append("grows without end" if is_too_few else f"{fewer.percentile_ms(99, since=1):.0f}")
        yield row


def losses(added: float) -> Iterator[list[str]]:
    """A machine of 20 dies."""
    yield ["proxies notice after", *(f"lost: {WAYS[choices]}" for choices in WAYS), "p99 of what is answered, ms"]
    for notice in (0.5, 5.0, 15.0):
        row = [f"{notice:g} s"]
        for choices in WAYS:
            fleet = Fleet(20, 16, RUN_MS, added, choices, notice_s=notice)
            outcome = simulate(fleet, [Load(0, RATE)], 4 + notice, SEED, death_at=2)
            row.append(f"{outcome.lost():,}")
            if choices == 1:
                slowest = outcome.percentile_ms(99, since=2)
        yield [*row, f"{slowest:.0f}"]


SCALERS = {
    "none: 20 machines all the time": None,
    "Ray Serve, as it is without arguments": Autoscaler(2.75, 11, 40, 30, 1, 30, 600, 60),
    "Ray Serve, `look_back_period_s=11 upscale_delay_s=1`": Autoscaler(2.75, 11, 40, 11, 1, 1, 600, 60),
    "the same, and machines that start in 20 s": Autoscaler(2.75, 11, 40, 11, 1, 1, 600, 20),
    "Kubernetes (every 15 s, metrics of 30 s)": Autoscaler(2.75, 11, 40, 30, 15, 0, 300, 60),
}


def lags(added: float) -> Iterator[list[str]]:
    """The load doubles within a second. A quarter of the load and of each machine, which behave alike."""
    yield ["autoscaler", "14 machines after", "seconds over 100 ms", "refused (503)", "most machines"]
    began, seconds = 30.0, 150.0
    for name, scaler in SCALERS.items():
        machines = 20 if scaler is None else 11
        # A queue of half a second for each machine: what waits longer is refused.
        fleet = Fleet(machines, 4, RUN_MS, added, 2, queue=100)
        outcome = simulate(fleet, [Load(0, RATE / 8), Load(began, RATE / 4)], seconds, SEED, scaler)
        enough = next((at for at, number in outcome.machines if number >= 14 and at >= began), began)
        yield [
            name,
            f"{enough - began:.0f} s",
            str(outcome.slow_seconds(SLOW_MS)),
            f"{outcome.refused() / len(outcome.answers):.1%}",
            str(max(number for _, number in outcome.machines)),
        ]


TABLES: dict[str, Callable[[float], Iterator[list[str]]]] = {
    "sizes": sizes,
    "load": load,
    "losses": losses,
    "lags": lags,
}


def table(rows: Iterator[list[str]]) -> str:
    """As Markdown; the first column is text."""
    head, *body = rows
    return "".join(markdown(head, body)).rstrip("\n")


def fill(text: str, name: str, content: str, by: str = "benchmarks/plan.py") -> str:
    """The page with this table, which ``by`` has made, in its place."""
    begin, end = f"<!-- {name}: begin ({by}) -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    if not found or end not in rest:
        raise SystemExit(f"the page has no place for the table {name}: {begin}")
    return f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def write(page: Path, added: float) -> None:
    text = page.read_text("utf-8")
    for name, make in TABLES.items():
        print(f"simulating {name}", flush=True)
        text = fill(text, name, table(make(added)))
    page.write_text(text, "utf-8")


if __name__ == "__main__":
    write(PAGE, added_ms(Results.load(FIGURES)))
    sys.exit(0)
