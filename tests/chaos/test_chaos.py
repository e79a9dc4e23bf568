"""The short runs of the chaos suite: one seed that stays, and one for each group of scripts that is
new each time and named by the report.

``python -m tests.chaos`` (``make chaos``) runs for longer. ``-m "not soak"`` leaves the tests out.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from . import campaign


@pytest.mark.soak
@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("group", "seed"),
    [("serial", 20261122), ("serial", None), ("async", None), ("joined", None)],
    ids=["known seed", "new seed", "async", "joined"],
)
def test_nothing_is_lost(tmp_path: Path, group: str, seed: int | None) -> None:
    report = campaign.run(tmp_path, 30, random.randrange(1_000_000) if seed is None else seed, group)
    print(report)
    assert not report.violations, str(report)
    # A busy machine slows the monkey down.
    assert len(report.diary) > 5
    assert len(report.calls) > 500
    if group == "joined":
        assert report.joint_calls() > 50
