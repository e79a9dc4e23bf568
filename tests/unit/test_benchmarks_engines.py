"""The table and the summary that ``benchmarks/engines.py`` writes into docs/deploy.md."""

from __future__ import annotations

import pytest

from benchmarks.engines import ALONE, CONNECTIONS, NOTHING, OURS, PAGE, PROXIES, table
from benchmarks.plan import fill
from benchmarks.results import Results, Sample


def measured(script_p50: float) -> Results:
    """Two rounds, in which the script gets 60 % and 80 % of the requests/s of the application that does nothing."""
    results = Results({}, 2, 3)
    for proxy in PROXIES:
        for connections in CONNECTIONS:
            for number, share in enumerate((0.6, 0.8)):
                figures = {ALONE: (9000.0, 0.1), NOTHING: (1000.0, 1.0), OURS: (1000.0 * share, script_p50)}
                for name, (rps, p50) in figures.items():
                    values = {"rps": rps, "p50_ms": p50, "p99_ms": 2 * p50, "cpu_ms": 0.5}
                    results.samples.append(Sample(f"{proxy}.{connections}", name, number, values))
    return results


def test_each_row_names_its_proxy() -> None:
    rows = [line.split(" | ")[:3] for line in table(measured(1.5)).splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len({tuple(row) for row in rows}) == 12
    assert ["| nothing, beside Ray Serve, HAProxy", "16", "the server alone"] in rows


@pytest.mark.parametrize(("p50", "words"), [(1.5, "0.50 ms more."), (0.75, "0.25 ms less.")])
def test_the_summary_compares_the_script_with_nothing(p50: float, words: str) -> None:
    last = table(measured(p50)).splitlines()[-1]
    assert last.startswith("- Ray Serve, HAProxy: the script gets 0.70 (0.60 to 0.80) of the requests/s")
    assert last.endswith(words)


def test_what_was_not_measured_is_said() -> None:
    assert table(Results({}, 0, 3)).endswith("- Ray Serve, HAProxy: not measured.")


def test_the_page_has_a_place_for_the_table() -> None:
    text = PAGE.read_text("utf-8")
    assert "the table" in fill(text, "engines", "the table", by="benchmarks/engines.py")
