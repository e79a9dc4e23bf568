"""The decorator ``api.batched``: what it refuses, and how it joins the calls of an async run()."""

from __future__ import annotations

import asyncio

import pytest

from azureml_inference_server_http.api import batched


def run_together(run, *inputs):
    """The results of calls that begin at the same time; exceptions as they are."""

    async def call_all():
        return await asyncio.gather(*(run(each) for each in inputs), return_exceptions=True)

    return asyncio.run(call_all())


def test_a_plain_run_takes_one_input_in_tests():
    @batched
    def run(items):
        return [item * 2 for item in items]

    assert run(4) == 8
    assert run(items=[5]) == [5, 5]
    assert run.__name__ == "run"


def test_defaults_and_several_parameters_become_lists():
    @batched(max_size=2)
    def run(left, right=3):
        assert len(left) == len(right) == 1
        return [left[0] + right[0]]

    assert (run(1), run(1, right=1)) == (4, 2)


@pytest.mark.parametrize("options", [{"max_size": 0}, {"max_size": 1025}, {"max_wait_ms": -1}, {"max_wait_ms": 251}])
def test_options_that_are_refused(options):
    with pytest.raises(ValueError, match="it has to be a"):
        batched(**options)


def test_generators_are_refused():
    with pytest.raises(TypeError, match="must not contain yield"):

        @batched
        def run(items):
            yield from items


@pytest.mark.parametrize("returned", [5, "text", {"a": 1}, [1, 2]])
def test_a_wrong_result_names_the_fault(returned):
    @batched
    def run(items):
        return returned

    with pytest.raises((TypeError, ValueError), match=r"run\(\) has @batched"):
        run(1)


def test_calls_of_an_async_run_are_joined_up_to_the_maximum():
    calls = []

    @batched(max_size=3, max_wait_ms=1)
    async def run(items):
        calls.append(items)
        return [item * 2 for item in items]

    assert run_together(run, 1, 2, 3, 4) == [2, 4, 6, 8]
    assert calls == [[1, 2, 3], [4]]


def test_an_exception_in_the_results_fails_one_call():
    @batched
    async def run(items):
        return [ValueError("bad") if item == 2 else item for item in items]

    first, second, third = run_together(run, 1, 2, 3)
    assert (first, third) == (1, 3)
    assert isinstance(second, ValueError)


def test_when_a_joint_call_fails_only_the_guilty_fail():
    @batched
    async def run(items):
        if 2 in items:
            raise ValueError("bad")
        return items

    first, second, third = run_together(run, 1, 2, 3)
    assert (first, third) == (1, 3)
    assert isinstance(second, ValueError)


def test_a_cancelled_call_is_left_out_and_all_cancelled_calls_end_the_joint_call():
    seen, ended = [], []

    @batched(max_size=2, max_wait_ms=1)
    async def run(items):
        seen.append(items)
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            ended.append(items)
            raise

    async def call():
        left_early, *others = [asyncio.ensure_future(run(item)) for item in (1, 2)]
        await asyncio.sleep(0)
        later = [asyncio.ensure_future(run(item)) for item in (3,)]
        left_early.cancel()
        while len(seen) < 2:
            await asyncio.sleep(0.001)
        for task in (*others, *later):
            task.cancel()
        await asyncio.gather(left_early, *others, *later, return_exceptions=True)
        while len(ended) < 2:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(call(), 60))
    assert seen == [[1, 2], [3]]
