"""Draws the figures of a run as SVG files for docs/performance.md.

Owns how they look. Files are the same for the same figures, so that a new run changes what has
changed. The only module that needs matplotlib; imported when a page is written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from .candidates import CANDIDATES, CEILING, OURS, OURS_TELEMETRY, OURS_THREADS, OURS_WORKER_THREADS, REFERENCE
from .measure import CONNECTIONS, WORKERS
from .results import Results
from .scenarios import SCENARIOS

STYLE = {
    # Text stays text: small files, and words that can be searched and copied.
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
}
COLOURS = {
    OURS: "#c2410c",
    OURS_THREADS: "#f59e0b",
    OURS_WORKER_THREADS: "#fb923c",
    OURS_TELEMETRY: "#fdba74",
    REFERENCE: "#1d4ed8",
    "published-granian": "#60a5fa",
    "granian-rsgi": "#7c3aed",
    "mosec": "#059669",
    "fastapi": "#0891b2",
    "litserve": "#be185d",
    "bentoml": "#a8a29e",
    CEILING: "#111827",
    "actix-1": "#6b7280",
}
# The candidates that are drawn with thick lines.
MAIN = (OURS, OURS_THREADS, REFERENCE)
LARGE = {
    "numbers-1mb": "1 MB of numbers in",
    "numbers-10mb": "10 MB of numbers in",
    "binary-10mb": "10 MB binary in",
    "floats-out": "a million floats out",
}


def write(results: Results, folder: Path) -> None:
    """Write every drawing whose figures were measured."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, Callable[[Results], Any]] = {
        "trivial": _trivial,
        "connections": _connections,
        "large": _large,
        "scaling": _scaling,
        "start-and-memory": _start_and_memory,
    }
    plt.switch_backend("svg")
    with plt.rc_context(STYLE):
        for name, draw in drawings.items():
            drawn = draw(results)
            if drawn is not None:
                drawn.savefig(folder / f"{name}.svg", metadata={"Date": None})
                plt.close(drawn)


def _trivial(results: Results) -> Any:
    panels = (("c64.rps", "requests/s, 64 connections", "{:,.0f}"), ("c1.p50_ms", "median ms, 1 connection", "{:.2f}"))
    return _bars(results, [("trivial", *panel) for panel in panels])


def _start_and_memory(results: Results) -> Any:
    panels = [("start", "seconds", "seconds to the first healthy answer", "{:.3g}")]
    return _bars(results, [*panels, ("memory", "idle.pss_mib", "idle PSS, MiB, 1 worker", "{:.0f}")])


def _bars(results: Results, panels: list[tuple[str, str, str, str]]) -> Any:
    if not any(results.candidates_in(scenario) for scenario, *_ in panels):
        return None
    drawn, axes = plt.subplots(1, len(panels), figsize=(10, 3.6))
    for axis, (scenario, value, title, form) in zip(axes, panels):
        keys = [key for key in CANDIDATES if results.spread(scenario, value, key)][::-1]
        spreads = [results.spread(scenario, value, key) for key in keys]
        low = [each.median - each.low for each in spreads if each]
        high = [each.high - each.median for each in spreads if each]
        bars = axis.barh(
            [CANDIDATES[key].name for key in keys],
            [each.median for each in spreads if each],
            xerr=[low, high],
            color=[COLOURS[key] for key in keys],
            error_kw={"elinewidth": 0.8, "ecolor": "#6b7280"},
        )
        axis.bar_label(bars, labels=[form.format(each.median) for each in spreads if each], padding=4, fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.margins(x=0.15)
    return drawn


def _connections(results: Results) -> Any:
    return _lines(results, "trivial", [(count, f"c{count}.rps") for count in CONNECTIONS], "connections")


def _scaling(results: Results) -> Any:
    drawn = _lines(results, "scaling", [(count, f"w{count}.rps") for count in WORKERS], "workers")
    if drawn is not None:
        # run() sleeps 10 ms, so no server can answer more than 100 requests a second with each
        # worker.
        axis = drawn.axes[0]
        axis.plot(
            WORKERS, [100 * count for count in WORKERS], color="#111827", linestyle=":", label="limit: 10 ms each"
        )
        _legend(drawn)
    return drawn


def _plain(value: float, _: int) -> str:
    """1, 2 and 5 of each power of ten, in full."""
    return f"{value:,.0f}" if f"{value:e}"[0] in "125" else ""


def _lines(results: Results, scenario: str, points: list[tuple[int, str]], title: str) -> Any:
    measured = [key for key in SCENARIOS[scenario].candidates if key in results.candidates_in(scenario)]
    if not measured:
        return None
    drawn, axis = plt.subplots(figsize=(7, 4))
    for key in measured:
        found = [(place, results.spread(scenario, value, key)) for place, value in points]
        axis.plot(
            [place for place, spread in found if spread],
            [spread.median for _, spread in found if spread],
            marker="o", markersize=4, color=COLOURS[key], linewidth=2.5 if key in MAIN else 1.2,
            label=CANDIDATES[key].name,
        )  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_plain)
    axis.yaxis.set_minor_formatter(_plain)
    axis.set_xticks([place for place, _ in points], [str(place) for place, _ in points])
    axis.set_xlabel(title)
    axis.set_ylabel("requests/s")
    _legend(drawn)
    return drawn


def _legend(drawn: Any) -> None:
    """Add one legend to the right of the plot, so that no line runs behind it."""
    for old in drawn.legends:
        old.remove()
    drawn.legend(loc="outside right upper", fontsize=8, frameon=False)


def _large(results: Results) -> Any:
    """The speed of each candidate relative to the published server, for which a bar would be 1. The
    bare HTTP server is left out: it does not read bodies, and its bar would make the others too
    small."""
    measured = [name for name in LARGE if REFERENCE in results.candidates_in(name)]
    others = [key for key in CANDIDATES if key not in (REFERENCE, CEILING)]
    keys = [key for key in others if any(results.spread(name, "p50_ms", key) for name in measured)]
    if not keys:
        return None
    drawn, axis = plt.subplots(figsize=(9, 3.6))
    width = 0.8 / len(keys)
    for index, key in enumerate(keys):
        ratios = [results.ratio(name, "p50_ms", REFERENCE, key) for name in measured]
        bars = axis.bar(
            [place + index * width for place in range(len(measured))],
            [each.median if each else 0 for each in ratios],
            width, label=CANDIDATES[key].name, color=COLOURS[key],
        )  # fmt: skip
        axis.bar_label(bars, labels=[f"{each.median:.1f}" if each else "" for each in ratios], fontsize=7)
    axis.axhline(1, color=COLOURS[REFERENCE], linewidth=1, zorder=0, label=CANDIDATES[REFERENCE].name)
    axis.set_xticks([place + 0.4 - width / 2 for place in range(len(measured))], [LARGE[name] for name in measured])
    axis.set_ylabel("times as fast as published 1.5.1")
    _legend(drawn)
    return drawn
