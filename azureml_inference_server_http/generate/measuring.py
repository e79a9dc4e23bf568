"""Measures the script: starts it once, as ``azmlinfsrv validate`` does, and sends the samples.

Owns what of a validation counts as a measurement. Runs in the command, before anything is imported that the script does
not find in production.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..validation import findings, options
from ..validation.checks import Validation
from ..validation.report import PASSED, Report
from . import sizing


class Measurement(NamedTuple):
    """What was measured, or None, and the sentence that says so."""

    found: sizing.Measured | None
    sentence: str


def measure(flags: dict[str, Any]) -> Measurement:
    """Start the script with these options, and send its samples. Raises UsageError for a sample that is missing."""
    validation = Validation(flags, options.sample_files(flags))
    try:
        validation.check()
    finally:
        validation.abandon()
    return read(validation.report(0.0), validation.peak)


def read(report: Report, peak: int) -> Measurement:
    """What this validation says of the script's needs."""
    starts = [step for step in report.steps if step.name in (findings.IMPORT, findings.INIT)]
    if len(starts) < 2 or any(step.outcome != PASSED or step.seconds is None for step in starts):
        problem = next((each.message for each in report.findings if findings.counts(each)), "it did not start")
        return Measurement(
            None,
            f"The script could not be started here, so its needs are guessed: {problem}\n"
            "azmlinfsrv validate with the same options tells more.",
        )
    samples = [step for step in report.steps if step.name == findings.SAMPLE and step.seconds is not None]
    found = sizing.measured(sum(step.seconds or 0.0 for step in starts), peak, len(samples))
    sentence = f"Measured: the script starts in {found.seconds} s or less, and one worker needs up to {found.mib} MiB"
    if not samples:
        return Measurement(found, f"{sentence} before its first request; --sample FILE measures requests too.")
    failed = sum(step.outcome != PASSED for step in samples)
    answered = f"{sentence} with {len(samples)} sample{'s' * (len(samples) > 1)}"
    if failed:
        return Measurement(found, f"{answered}, of which {failed} failed: azmlinfsrv validate tells more.")
    return Measurement(found, f"{answered}.")
