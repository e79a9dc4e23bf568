"""The short run of the chaos suite: one seed that stays, and one that is new each time and named by
the report.

``python -m tests.chaos`` (``make chaos``) runs for longer. ``-m "not soak"`` leaves both tests out.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from . import campaign


@pytest.mark.soak
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [20261122, None], ids=["known seed", "new seed"])
def test_nothing_is_lost(tmp_path: Path, seed: int | None) -> None:
    report = campaign.run(tmp_path, seconds=30, seed=random.randrange(1_000_000) if seed is None else seed)
    print(report)
    assert not report.violations, str(report)
    assert len(report.diary) > 20
    assert report.runs > 500
