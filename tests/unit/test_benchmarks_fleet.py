"""benchmarks: the simulated fleet. Known results of queueing, what a lost machine costs, and the autoscaler's lag."""

from __future__ import annotations

import random

import pytest

from benchmarks import plan
from benchmarks.fleet import LOST, REFUSED, Autoscaler, Fleet, Load, arrivals, simulate

SECONDS = 40.0
# Twenty workers, 70 % of which are busy.
RATE = 700.0


def steady(fleet: Fleet, rate: float = RATE, seconds: float = SECONDS, seed: int = 1) -> list[float]:
    answers = simulate(fleet, [Load(0, rate)], seconds, seed).answers
    return [answer.seconds for answer in answers if answer.at > 1]


def test_the_same_seed_gives_the_same_outcome() -> None:
    fleet = Fleet(5, 4, 20)
    once, again, other = (simulate(fleet, [Load(0, RATE)], 2, seed) for seed in (1, 1, 2))
    assert once == again
    assert once != other


def test_requests_come_at_the_rate_of_their_time() -> None:
    found = list(arrivals([Load(0, 100), Load(10, 1000)], 20, random.Random(3)))
    assert found == sorted(found)
    assert sum(at < 10 for at in found) == pytest.approx(1000, rel=0.1)
    assert sum(at >= 10 for at in found) == pytest.approx(10_000, rel=0.05)
    assert found[-1] < 20


def test_one_worker_waits_as_theory_says() -> None:
    """M/D/1: the mean time in the queue is rho / (2 (1 - rho)) times the time of service."""
    times = steady(Fleet(1, 1, 20), rate=35, seconds=2000)
    waited = sum(times) / len(times) - 0.020
    assert waited == pytest.approx(0.7 / (2 * 0.3) * 0.020, rel=0.1)


def test_an_idle_fleet_adds_only_what_its_proxies_add() -> None:
    times = steady(Fleet(20, 16, 20, added_ms=1.5), rate=5)
    assert times == pytest.approx([0.0215] * len(times))


def test_larger_machines_and_a_choice_wait_less() -> None:
    def slowest(machines: int, workers: int, choices: int) -> float:
        times = sorted(steady(Fleet(machines, workers, 20, choices=choices)))
        return times[len(times) * 99 // 100]

    assert slowest(1, 20, 1) < slowest(5, 4, 1) < slowest(20, 1, 1)
    assert slowest(20, 1, 20) < slowest(20, 1, 2) < slowest(20, 1, 1)


def test_a_full_queue_refuses_and_nothing_is_forgotten() -> None:
    outcome = simulate(Fleet(1, 1, 20, queue=3), [Load(0, 100)], 10, 1)
    assert outcome.refused() == sum(answer.seconds == REFUSED for answer in outcome.answers) > 0
    # Half of the requests is more than the worker can do.
    assert outcome.refused() == pytest.approx(len(outcome.answers) / 2, rel=0.1)
    # One that runs, and three before it.
    assert max(answer.seconds for answer in outcome.answers) <= 0.080 + 1e-9


def test_a_lost_machine_costs_what_it_has_and_what_is_sent_to_it_until_it_is_noticed() -> None:
    fleet = Fleet(10, 4, 20, choices=1, notice_s=2)
    outcome = simulate(fleet, [Load(0, RATE)], 20, 1, death_at=10)
    lost = [answer.at for answer in outcome.answers if answer.seconds == LOST]
    assert 9.5 < min(lost) < 10 < max(lost) < 12
    assert outcome.lost() == len(lost) == pytest.approx(RATE / 10 * 2, rel=0.25)
    assert outcome.machines == [(0.0, 10), (12.0, 9)]
    # A choice sends less to a machine that does not answer: its requests seem to run.
    assert simulate(fleet._replace(choices=2), [Load(0, RATE)], 20, 1, death_at=10).lost() < len(lost) / 2


def test_the_autoscaler_follows_after_its_delays() -> None:
    scaler = Autoscaler(
        target=3, least=2, most=20, look_back_s=5, period_s=1, up_delay_s=10, down_delay_s=20, start_s=15
    )
    loads = [Load(0, 200), Load(30, 800), Load(120, 200)]
    outcome = simulate(Fleet(2, 4, 20), loads, 200, 1, scaler)
    more = [at for at, number in outcome.machines if number > 2]
    # The load doubles and doubles again at 30; then the delays pass, and the machines start.
    assert 30 + 10 + 15 <= more[0] <= 30 + 5 + 10 + 15 + 2
    assert max(number for _, number in outcome.machines) <= 20
    at, number = outcome.machines[-1]
    assert at >= 120
    assert number == 2
    # All is well again after a while, and was not in between.
    assert outcome.percentile_ms(99, since=35, until=55) > 100
    assert outcome.percentile_ms(99, since=100, until=120) < 60
    assert 10 < outcome.slow_seconds(100) < 60


def test_the_autoscaler_counts_machines_that_start() -> None:
    """It looks and a machine becomes ready at the same moment: the machine must not be ordered twice."""
    scaler = Autoscaler(target=3, least=2, most=8, look_back_s=5, period_s=5, up_delay_s=0, down_delay_s=50, start_s=15)
    outcome = simulate(Fleet(2, 4, 20, queue=10), [Load(0, 2000)], 60, 1, scaler)
    assert [number for _, number in outcome.machines] == [2, 3, 4, 5, 6, 7, 8]


def test_without_an_answer_a_second_is_slow() -> None:
    outcome = simulate(Fleet(1, 1, 20, queue=0), [Load(0, 100)], 10, 1)
    assert outcome.slow_seconds(1000) == 10


def test_the_page_has_every_table_of_the_plan() -> None:
    text = plan.PAGE.read_text("utf-8")
    for name in plan.TABLES:
        filled = plan.fill(text, name, "| a table |")
        assert "| a table |" in filled
        assert len(filled) < len(text), name
    with pytest.raises(SystemExit, match="no place for the table other"):
        plan.fill(text, "other", "")


def test_a_table_is_markdown() -> None:
    assert plan.table(iter([["a", "b"], ["1", "2"]])) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
