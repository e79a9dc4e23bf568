"""What a managed online deployment of Azure Machine Learning allows, and what becomes of the settings there.

Owns the limits of the service. Pure functions.
"""

from __future__ import annotations

from typing import NamedTuple

from .facts import Facts

# An endpoint's name has 3 to 32 characters.
NAME_LENGTHS = (3, 32)
# request_timeout_ms may not be above this.
LONGEST_REQUEST_MS = 180_000
# What a request may take beyond run(): waiting for a worker, and the way.
MARGIN_MS = 5_000
# SCORING_TIMEOUT_MS where none was given: the server's own default is above what Azure allows.
USUAL_SCORING_MS = 60_000


class Limits(NamedTuple):
    """What deployment.yml says, and sentences about what was changed."""

    scoring_timeout_ms: int
    request_timeout_ms: int
    concurrency: int
    notes: list[str]


def limits(known: Facts) -> Limits:
    """The limits of a deployment with these settings."""
    wanted = known.scoring_timeout_ms
    scoring = min(wanted or LONGEST_REQUEST_MS, LONGEST_REQUEST_MS - MARGIN_MS)
    notes = []
    if wanted is None:
        scoring = USUAL_SCORING_MS
    elif scoring != wanted:
        shown = f"{wanted}" if wanted else "0 (no limit)"
        notes.append(
            f"azureml/deployment.yml has SCORING_TIMEOUT_MS {scoring} in place of {shown}, because Azure ML ends each "
            f"request after {LONGEST_REQUEST_MS} ms at the latest."
        )
    return Limits(scoring, scoring + MARGIN_MS, known.calls_at_once, notes)
