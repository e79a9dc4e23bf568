"""benchmarks: what is worked out from measurements. Medians and ratios, wrk's outcome, the ideal
queue, targets."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from benchmarks import candidates, queueing, results, targets
from benchmarks.load import LoadFailed, parse_outcome
from benchmarks.queueing import Arrival, percentile, single_queue
from benchmarks.results import Results, Sample, Spread
from benchmarks.scenarios import INSTALL, SCENARIOS


def run_with(*samples: Sample) -> Results:
    return Results({}, rounds=3, seconds=1, samples=list(samples))


def samples(scenario: str, value: str, **figures: list[float]) -> list[Sample]:
    """One sample for each candidate and round."""
    return [
        Sample(scenario, candidate, number, {value: figure})
        for candidate, values in figures.items()
        for number, figure in enumerate(values)
    ]


class TestResults:
    def test_spread_is_median_and_ends(self) -> None:
        run = run_with(*samples("trivial", "c1.rps", ours=[30, 10, 20]))
        assert run.spread("trivial", "c1.rps", "ours") == Spread(20, 10, 30)

    def test_what_was_not_measured_has_no_spread(self) -> None:
        run = run_with(*samples("trivial", "c1.rps", ours=[30]))
        assert run.spread("trivial", "c1.rps", "published") is None
        assert run.spread("trivial", "c64.rps", "ours") is None
        assert run.ratio("trivial", "c1.rps", "ours", "published") is None

    def test_ratio_is_of_medians_and_its_range_of_single_rounds(self) -> None:
        run = run_with(*samples("start", "seconds", ours=[1, 2, 6], published=[10, 10, 12]))
        assert run.ratio("start", "seconds", "ours", "published") == Spread(0.2, 0.1, 0.5)

    def test_ratio_with_a_round_that_failed(self) -> None:
        run = run_with(*samples("start", "seconds", ours=[1, 2], published=[10]))
        assert run.ratio("start", "seconds", "ours", "published") == Spread(0.15, 0.1, 0.1)

    def test_file_holds_what_was_saved(self, tmp_path: Path) -> None:
        run = run_with(*samples("trivial", "c1.rps", ours=[1234.56789, 2.0]))
        run.left_out.append("a server: a reason")
        run.save(tmp_path / "new" / "figures.json")
        loaded = results.Results.load(tmp_path / "new" / "figures.json")
        assert loaded.samples[0].values == {"c1.rps": 1234.57}
        assert (loaded.samples[1], loaded.left_out, loaded.rounds) == (run.samples[1], run.left_out, 3)


class TestOutcomeOfWrk:
    def test_line_of_the_script(self) -> None:
        line = (
            'outcome {"requests": 500, "microseconds": 2000000, "p50": 1500, "p99": 9000, "bad_status": 1, '
            '"broken": 2, "told": 5.25}'
        )
        load = parse_outcome(f"Running 2s test @ http://127.0.0.1:1/score\n  1 threads\n{line}\n")
        assert (load.rps, load.p50_ms, load.p99_ms, load.bad_status, load.broken) == (250, 1.5, 9, 1, 2)
        assert load.told == 5.25

    def test_no_line(self) -> None:
        with pytest.raises(LoadFailed, match="unable to connect"):
            parse_outcome("unable to connect to 127.0.0.1:1 Connection refused\n")


class TestIdealQueue:
    def test_no_waiting_while_a_worker_is_free(self) -> None:
        assert single_queue([Arrival(0, 20), Arrival(0.001, 20)], workers=2) == pytest.approx([0.02, 0.02])

    def test_next_in_line_takes_the_first_free_worker(self) -> None:
        times = single_queue([Arrival(0, 200), Arrival(0, 20), Arrival(0.01, 20), Arrival(0.01, 20)], workers=2)
        assert times == pytest.approx([0.2, 0.02, 0.03, 0.05])

    def test_worker_is_free_again(self) -> None:
        assert single_queue([Arrival(0, 20), Arrival(1, 20)], workers=1) == pytest.approx([0.02, 0.02])

    def test_arrivals(self) -> None:
        arrivals = queueing.poisson_arrivals(seed=7, seconds=100, workers=2)
        assert arrivals == queueing.poisson_arrivals(seed=7, seconds=100, workers=2)
        assert arrivals != queueing.poisson_arrivals(seed=8, seconds=100, workers=2)
        assert [a.at for a in arrivals] == sorted(a.at for a in arrivals)
        assert sum(a.ms == queueing.SLOW_MS for a in arrivals) == round(len(arrivals) / 10)
        # Arrivals are random, so the utilisation of the workers is only near 70 %.
        assert sum(a.ms for a in arrivals) / 1000 / 2 / arrivals[-1].at == pytest.approx(queueing.UTILISATION, rel=0.2)

    @pytest.mark.parametrize(
        ("share", "expected"), [(50, 50), (99, 99), (100, 100), (1, 1)], ids=["median", "99th", "last", "first"]
    )
    def test_percentile(self, share: float, expected: float) -> None:
        assert percentile([float(value) for value in range(100, 0, -1)], share) == expected

    def test_percentile_of_one(self) -> None:
        assert percentile([3.0], 99) == 3


class TestTargets:
    def test_ratio_and_speed(self) -> None:
        run = run_with(*samples("numbers-10mb", "p50_ms", ours=[20], published=[80]))
        share = targets.Check("numbers-10mb", "p50_ms", targets.AT_MOST, 0.25, "published")
        speed = targets.Check("numbers-10mb", "p50_ms", targets.AT_LEAST, 4, "published", as_speed=True)
        assert share.figure(run) == Spread(0.25, 0.25, 0.25)
        assert speed.figure(run) == Spread(4, 4, 4)

    @pytest.mark.parametrize(
        ("bound", "median", "met"),
        [("at least", 4, True), ("at least", 3.99, False), ("at most", 4, True), ("at most", 4.01, False)],
    )
    def test_limit_counts_as_met(self, bound: str, median: float, met: bool) -> None:
        assert targets.Check("start", "seconds", bound, 4).is_met(Spread(median, 0, 10)) is met

    def test_each_looks_at_something_that_is_measured(self) -> None:
        assert len({target.key for target in targets.TARGETS}) == len(targets.TARGETS)
        for check in itertools.chain.from_iterable(target.checks for target in targets.TARGETS):
            assert check.candidate in candidates.CANDIDATES
            assert not check.reference or check.reference in candidates.CANDIDATES
            if check.scenario != INSTALL:
                scenario = SCENARIOS[check.scenario]
                assert {check.candidate, check.reference} - {""} <= {*scenario.candidates}
                assert check.value in {column.value for column in scenario.columns}
