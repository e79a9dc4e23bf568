"""What a worker says about the limits in force (contract section 2, item 13)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from azureml_inference_server_http.scripting import worker


@pytest.mark.parametrize(
    ("milliseconds", "seconds", "text"),
    [
        (60000, 300, "60000 ms"),
        (300000, 300, "300000 ms"),
        (3600000, 300, "3600000 ms (WORKER_TIMEOUT, 300 s, is shorter)"),
        (3600000, 0, "3600000 ms"),
        (0, 300, "0 ms (WORKER_TIMEOUT, 300 s, is shorter)"),
        (0, 0, "0 ms (no limit)"),
    ],
)
def test_the_scoring_timeout_in_force(records, milliseconds, seconds, text):
    worker.log_scoring_timeout(SimpleNamespace(scoring_timeout_ms=milliseconds, worker_timeout=seconds))
    assert records() == [("INFO", f"Scoring timeout is set to {text}")]
