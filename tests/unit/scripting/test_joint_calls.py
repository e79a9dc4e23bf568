"""When joint calls end because they are of no use. Those of an async function, which need no worker."""

from __future__ import annotations

import asyncio
import logging

import pytest

from azureml_inference_server_http.api import batched
from azureml_inference_server_http.scripting.joint_calls import USELESS_CALLS


def run_together(run, *inputs):
    """The results of calls that begin at the same time; exceptions as they are."""

    async def call_all():
        return await asyncio.gather(*(run(each) for each in inputs), return_exceptions=True)

    return asyncio.run(call_all())


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (lambda items: [1], "run() has @batched, and returned 1 results for 2 inputs"),
        (lambda items: 1 / (2 - len(items)), "of which each succeeded alone: ZeroDivisionError"),
    ],
    ids=["count", "error"],
)
def test_joint_calls_of_an_async_run_that_are_of_no_use_are_told_and_end(returned, reason, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    sizes = []

    @batched(max_size=2, max_wait_ms=1)
    async def run(items):
        sizes.append(len(items))
        return returned(items) if len(items) > 1 else items

    for _ in range(USELESS_CALLS):
        assert run_together(run, 1, 2) == [1, 2]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert reason in warning
    assert warning.endswith("Correct run(), which has @batched (docs/batching.md).")
    assert sizes == [2, 1, 1] * USELESS_CALLS
    assert run_together(run, 1, 2) == [1, 2]
    assert sizes[-2:] == [1, 1]
    assert len(sizes) == 3 * USELESS_CALLS + 2


def test_joint_calls_of_an_async_run_go_on_if_one_request_is_to_blame():
    sizes = []

    @batched(max_size=2, max_wait_ms=1)
    async def run(items):
        sizes.append(len(items))
        return [1 / item for item in items]

    for _ in range(USELESS_CALLS + 1):
        assert isinstance(run_together(run, 1, 0)[1], ZeroDivisionError)
    assert sizes == [2, 1, 1] * (USELESS_CALLS + 1)
