"""benchmarks: the page that is made of a run's figures, and that the committed one belongs to the
committed figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import page, payloads
from benchmarks.candidates import CANDIDATES
from benchmarks.results import Results, Sample, Spread
from benchmarks.scenarios import SCENARIOS, Scenario

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"date": "2026-01-31", "cpu": "a processor", "cores": 2, "python": "3.11.7", "wrk": "4.1.0"}


@pytest.fixture
def run() -> Results:
    """Two rounds in which the published server started in 1 s, and this one in 0.2 s and 0.4 s."""
    figures = {"ours": [0.2, 0.4], "published": [1.0, 1.0]}
    samples = [
        Sample("start", key, number, {"seconds": seconds})
        for key, values in figures.items()
        for number, seconds in enumerate(values)
    ]
    return Results(MACHINE, rounds=2, seconds=5, versions={"ours": {"Flask": "3.1"}}, samples=samples)


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


@pytest.mark.parametrize(
    ("spread", "form", "text"),
    [
        (Spread(1234.5, 1200, 1300), ",.0f", "1,234 (1,200 to 1,300)"),
        (Spread(2.0, 2.0, 2.0), ".1f", "2.0"),
        (Spread(2.0, 1.99, 2.01), ".1f", "2.0"),
        (None, ".1f", "-"),
    ],
    ids=["range", "one round", "the same when rounded", "not measured"],
)
def test_figure(spread: Spread | None, form: str, text: str) -> None:
    assert page.figure(spread, form) == text


def test_target_that_is_missed_is_told_with_its_note(run: Results) -> None:
    text = page.render(run, {"start": "Imports take it."})
    (row,) = lines(text, "| start to the first healthy answer")
    assert row.endswith("| at most 0.25 | 0.30 (0.20 to 0.40) | **not met** |")
    assert "**Not met: start to the first healthy answer.** Imports take it." in text
    assert "Of 1 figures that were measured, 0 meet their target, by the median. Not met: start to the first" in text


def test_target_that_is_met_may_have_a_note(run: Results) -> None:
    for sample in run.samples:
        sample.values["seconds"] /= 1 if sample.candidate == "published" else 10
    text = page.render(run, {"start": "Imports take it.", "scaling": "By the front."})
    assert "**Met: start to the first healthy answer.** Imports take it." in text
    assert "**Not measured: 1 to 8 workers" in text
    assert "Of 1 figures that were measured, 1 meet their target, by the median.\n" in text


def test_target_without_figures_is_not_taken_for_met(run: Results) -> None:
    (row,) = lines(page.render(run, {}), "| a new connection for each request")
    assert row.endswith("| - | not measured |")


def test_tables_have_what_was_measured_and_nothing_else(run: Results) -> None:
    text = page.render(run, {})
    assert "| this server | 0.300 (0.200 to 0.400) |" in text
    assert "| published 1.5.1 | 1.000 |" in text
    assert "LitServe" not in text
    assert SCENARIOS["stream"].title not in text


def test_what_was_left_out_is_told(run: Results) -> None:
    assert "Left out" not in page.render(run, {})
    run.left_out.append("mosec: pip install failed: no wheel")
    assert "### Left out\n\n- mosec: pip install failed: no wheel\n" in page.render(run, {})


def test_machine_is_described(run: Results) -> None:
    text = page.render(run, {})
    assert "| processor | a processor |" in text
    assert "- **this server**: worker processes, the default; logs every request (Flask 3.1).\n" in text


def test_committed_page_is_of_the_committed_figures_and_notes() -> None:
    pytest.importorskip("tomllib", reason="the notes are TOML, which Python reads since 3.11")
    figures = ROOT / "benchmarks" / "results" / "latest.json"
    if not figures.exists():
        pytest.skip("no full run has been committed")
    committed = (ROOT / "docs" / "performance.md").read_text("utf-8")
    assert committed == page.render(Results.load(figures), page.read_notes()), "run python -m benchmarks --page"


def test_notes_are_about_targets() -> None:
    pytest.importorskip("tomllib", reason="the notes are TOML, which Python reads since 3.11")
    assert set(page.read_notes()) <= {target.key for target in page.TARGETS}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_scenario_is_complete(scenario: Scenario) -> None:
    assert {*scenario.candidates} <= {*CANDIDATES}
    folder = ROOT if "/" in scenario.script else ROOT / "benchmarks" / "scripts"
    assert (folder / scenario.script).is_file()
    assert scenario.columns


@pytest.mark.parametrize("payload", [payloads.SMALL, payloads.NUMBERS_1MB, payloads.SLEEP_10], ids=lambda p: p.key)
def test_answer_of_the_bare_server_is_the_right_one(payload: payloads.Payload) -> None:
    assert payload.is_right(payload.reply())
    assert not payload.is_right(b'{"ok": false, "shape": [], "sum": 0, "slept_ms": 0}')


def test_bodies_have_about_the_size_that_their_name_says() -> None:
    assert len(payloads.NUMBERS_1MB.body()) == pytest.approx(1_000_000, rel=0.02)
    assert len(payloads.BINARY_10MB.body()) == 10_000_000
