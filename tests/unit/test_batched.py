"""The decorator ``api.batched``: what it refuses, and how it joins the calls of an async run()."""

from __future__ import annotations

import asyncio
import collections
import contextvars

import numpy as np
import pandas as pd
import pytest

from azureml_inference_server_http.api import batched
from azureml_inference_server_http.api.batching import LIMIT, TimeLimit


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


@pytest.mark.parametrize(
    "options",
    [
        {"max_size": 0},
        {"max_size": 1025},
        {"max_size": 2.5},
        {"max_size": "8"},
        {"max_wait_ms": -1},
        {"max_wait_ms": 251},
        {"max_wait_ms": "5"},
    ],
)
def test_options_that_are_refused(options):
    with pytest.raises(ValueError, match="it has to be a"):
        batched(**options)


def test_an_option_without_its_name_is_refused():
    with pytest.raises(TypeError, match=r"@batched\(8\): options have names, such as @batched\(max_size=8\)"):
        batched(8)


def test_generators_are_refused():
    with pytest.raises(TypeError, match="must not contain yield"):

        @batched
        def run(items):
            yield from items


@pytest.mark.parametrize(
    "returned",
    [
        5,
        "t",
        b"t",
        bytearray(b"t"),
        [1, 2],
        # These have one entry each, but it does not belong to the input.
        {1},
        frozenset([1]),
        {"a": 1},
        {"a": 1}.keys(),
        collections.ChainMap({"a": 1}),
        pd.DataFrame({"a": [1]}),
        np.array(1),
    ],
)
def test_a_wrong_result_names_the_fault(returned):
    @batched
    def run(items):
        return returned

    with pytest.raises((TypeError, ValueError), match=r"run\(\) has @batched"):
        run(1)


def test_a_frame_is_refused_with_what_to_return():
    @batched
    def run(items):
        return pd.DataFrame({"a": items})

    with pytest.raises(TypeError, match=r"in the order of the inputs, for example frame.to_dict\(orient='records'\)"):
        run(1)


@pytest.mark.parametrize("make", [list, tuple, collections.deque, np.array, pd.Series, pd.Index])
def test_what_counts_as_a_list_of_results(make):
    @batched
    def run(items):
        return make(items)

    assert run(1) == 1


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


class OfNoUsualKind(BaseException):
    """An exception that is no Exception."""


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), StopAsyncIteration()])
def test_whatever_run_raises_only_the_guilty_fail_and_all_are_answered(error):
    @batched
    async def run(items):
        if 2 in items:
            raise error
        return items

    async def calls():
        return await asyncio.wait_for(asyncio.gather(*map(outcome, (1, 2, 3))), 60)

    async def outcome(item):
        try:
            return await run(item)
        except BaseException as failure:
            return type(failure)

    assert asyncio.run(calls()) == [1, type(error), 3]


@pytest.mark.parametrize("error", [GeneratorExit(), OfNoUsualKind()])
def test_an_exception_of_no_usual_kind_fails_all_requests_of_the_call(error):
    @batched
    async def run(items):
        raise error

    assert [type(failed) for failed in run_together(run, 1, 2)] == [type(error)] * 2


def test_a_stop_iteration_among_the_results_fails_its_request_alone():
    @batched
    async def run(items):
        return [StopIteration() if item == 2 else item for item in items]

    first, second, third = run_together(run, 1, 2, 3)
    assert (first, third) == (1, 3)
    assert isinstance(second, RuntimeError)
    assert isinstance(second.__cause__, StopIteration)


def test_requests_that_wait_when_their_event_loop_ends_do_not_hold_up_the_next_one():
    @batched(max_wait_ms=1)
    async def run(items):
        return items

    async def leave():
        waits = asyncio.ensure_future(run(1))
        await asyncio.sleep(0)
        waits.cancel()

    async def stay():
        return await asyncio.wait_for(run(2), 60)

    asyncio.run(leave())
    assert asyncio.run(stay()) == 2


def test_event_loops_do_not_share_calls():
    calls = []

    @batched(max_size=2, max_wait_ms=1)
    async def run(items):
        calls.append(items)
        return items

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    waits = first.create_task(run(1))
    first.run_until_complete(asyncio.sleep(0))
    assert second.run_until_complete(run(2)) == 2
    assert first.run_until_complete(waits) == 1
    assert calls == [[2], [1]]
    first.close()
    second.close()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("max_size", [3, 4])
def test_a_joint_call_has_the_context_of_its_first_request_and_a_call_alone_its_own(max_size, fails):
    request, seen = contextvars.ContextVar("request"), []

    @batched(max_size=max_size, max_wait_ms=1)
    async def run(items):
        seen.append((len(items), request.get()))
        if fails:
            raise ValueError
        return items

    async def call(item):
        request.set(item)
        return await run(item)

    run_together(call, "a", "b", "c")
    assert seen == [(3, "a"), *((1, item) for item in "abc" if fails)]


def test_a_request_that_has_left_gives_the_call_no_context():
    request, seen = contextvars.ContextVar("request"), []

    @batched(max_size=3, max_wait_ms=1)
    async def run(items):
        seen.append((items, request.get()))
        return items

    async def call(item):
        request.set(item)
        return await run(item)

    async def calls():
        leaves, *stay = [asyncio.ensure_future(call(item)) for item in "ab"]
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.gather(*stay)

    asyncio.run(calls())
    assert seen == [(["b"], "b")]


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


class Limit(TimeLimit):
    """A time limit that the test ends. After a restart it is over as soon as the call waits."""

    def __init__(self, events, name):
        self.events = events
        self.name = name
        self.task = asyncio.current_task()

    def share(self, end):
        self.events.append(("share" if end else "end", self.name))
        if end:
            asyncio.get_running_loop().call_soon(end)

    def restart(self):
        self.events.append(("restart", self.name))
        if self.name == "hangs":
            asyncio.get_running_loop().call_later(0, self.task.cancel)


def test_a_shared_call_that_takes_too_long_costs_only_the_guilty_request():
    events = []

    @batched(max_size=3)
    async def run(items):
        await asyncio.sleep(0 if len(items) == 1 and items != ["hangs"] else 3600)
        return items

    async def ask(name):
        LIMIT.set(Limit(events, name))
        return await run(name)

    async def ask_all():
        return await asyncio.gather(*map(ask, ("a", "hangs", "c")), return_exceptions=True)

    first, hangs, last = asyncio.run(ask_all())
    assert (first, last) == ("a", "c")
    assert isinstance(hangs, asyncio.CancelledError)
    assert events[:6] == [(what, name) for what in ("share", "restart") for name in ("a", "hangs", "c")]
    assert sorted(events[6:]) == [("end", name) for name in ("a", "c", "hangs")]


def test_no_request_waits_for_a_call_that_goes_on_after_it_was_cancelled():
    """The call for the first request alone ends only when the other requests are answered."""
    answered = []

    async def serve():
        others_are_answered = asyncio.Event()

        @batched(max_size=3)
        async def run(items):
            if len(items) > 1:
                raise ValueError
            try:
                await asyncio.sleep(3600 if items == ["hangs"] else 0)
            except asyncio.CancelledError:
                await others_are_answered.wait()
            return items

        async def ask(name):
            LIMIT.set(Limit([], name))
            answered.append(await run(name))

        hangs, *others = [asyncio.ensure_future(ask(name)) for name in ("hangs", "b", "c")]
        await asyncio.wait_for(asyncio.gather(*others), 60)
        others_are_answered.set()
        await asyncio.wait([hangs])
        assert hangs.cancelled()

    asyncio.run(serve())
    assert answered == ["b", "c"]
