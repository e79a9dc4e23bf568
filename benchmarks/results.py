"""The figures of a run: samples as they were measured, medians and spreads of them, and the JSON
file they are kept in.

Pure but for ``save`` and ``load``. One sample is what one candidate did in one scenario in one
round: several values.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Sample:
    """The values of one candidate in one scenario in one round."""

    scenario: str
    candidate: str
    round: int
    values: dict[str, float]


@dataclass(frozen=True)
class Spread:
    """The median of several figures, with the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        return cls(statistics.median(figures), min(figures), max(figures))


def median(spread: Spread | None, digits: int) -> str:
    """The median for a table, with so many decimals; a dash if nothing was measured."""
    return "-" if spread is None else f"{spread.median:,.{digits}f}"


@dataclass
class Results:
    """The results of one run, perhaps not complete yet."""

    machine: dict[str, Any]
    # Number of complete rounds.
    rounds: int
    seconds: float
    # Exact versions of the measured packages, by candidate and package.
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    # Candidates and scenarios that were left out, with the reason.
    left_out: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def by_round(self, scenario: str, value: str, candidate: str) -> dict[int, float]:
        """One value of one candidate in all rounds where it was measured."""
        return {
            sample.round: sample.values[value]
            for sample in self.samples
            if (sample.scenario, sample.candidate) == (scenario, candidate) and value in sample.values
        }

    def spread(self, scenario: str, value: str, candidate: str) -> Spread | None:
        """The spread of one value of one candidate over the rounds; None if it was not measured."""
        figures = self.by_round(scenario, value, candidate)
        return Spread.of(list(figures.values())) if figures else None

    def ratio(self, scenario: str, value: str, candidate: str, reference: str) -> Spread | None:
        """The ratio of two candidates' medians, with the lowest and highest ratio within a
        round."""
        ours, theirs = self.by_round(scenario, value, candidate), self.by_round(scenario, value, reference)
        ratios = [ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys())]
        if not ratios:
            return None
        medians = statistics.median(ours.values()) / statistics.median(theirs.values())
        return Spread(medians, min(ratios), max(ratios))

    def candidates_in(self, scenario: str) -> set[str]:
        """The candidates that were measured in a scenario."""
        return {sample.candidate for sample in self.samples if sample.scenario == scenario}

    def save(self, path: Path) -> None:
        """Write the file completely or not at all, because a run may be interrupted while it
        saves."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(_rounded(asdict(self)), indent=1) + "\n", "utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Results:
        told = json.loads(path.read_text("utf-8"))
        told["samples"] = [Sample(**each) for each in told["samples"]]
        return cls(**told)


def _rounded(told: Any) -> Any:
    """Round figures to six digits, because more would only make the file longer."""
    if isinstance(told, dict):
        return {name: _rounded(value) for name, value in told.items()}
    if isinstance(told, list):
        return [_rounded(value) for value in told]
    return float(f"{told:.6g}") if isinstance(told, float) else told
