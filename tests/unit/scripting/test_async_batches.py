"""The time limits of requests that share a call of an async run() (@batched), on their event loop, without a front."""

from __future__ import annotations

import inspect

import pytest

from azureml_inference_server_http.scripting import async_calls

NEVER = "await asyncio.sleep(3600)"
BATCHED = "from azureml_inference_server_http.api import batched\n"


def test_a_call_alone_that_goes_on_after_its_limit_holds_up_no_request_of_its_batch(world):
    here = world(
        BATCHED
        + inspect.cleandoc(
            f"""
            def init(): pass
            @batched(max_size=3)
            async def run(texts):
                if len(texts) > 1:
                    raise ValueError("one of them")
                if texts == ["hangs"]:
                    try:
                        {NEVER}
                    finally:
                        {NEVER}
                return texts
            """
        ),
        scoring_timeout_ms=500,
    )
    for number, text in enumerate(("hangs", "b", "c")):
        here.start(number, texts=text)
    assert [here.until("returned", number) for number in (1, 2)] == ["b", "c"]
    assert type(here.until("raised", 0)) is TimeoutError
    here.turn()  # the call for "hangs" is cancelled, and goes on
    # The front restarts the time of all calls at each of these.
    assert here.kinds().count("again") == 1


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        ("@batched(max_size=2)\nasync def run(texts): return [stream(text) for text in texts]", "ended"),
        ("async def run(texts):\n    await length(texts)\n    await asyncio.sleep(3600)", "overdue"),
    ],
    ids=["stream", "rest of run()"],
)
def test_a_limit_that_is_over_after_a_shared_call_ends_the_request_at_once(world, monkeypatch, run, outcome):
    """A shared call has a second to end before its requests are cancelled. One that has ended needs none."""
    monkeypatch.setattr(async_calls, "CANCEL_GRACE", 3600.0)
    helpers = """
        def init(): pass
        async def stream(text):
            yield text.encode()
            await asyncio.sleep(3600)
        @batched(max_size=2)
        async def length(texts): return [len(text) for text in texts]
    """
    here = world(f"{BATCHED}{inspect.cleandoc(helpers)}\n{run}", scoring_timeout_ms=0, worker_timeout=1)
    for number in range(2):
        here.start(number, texts="text")
    assert ["WORKER_TIMEOUT" in str(here.until(outcome, number)) for number in range(2)] == [True, True]
