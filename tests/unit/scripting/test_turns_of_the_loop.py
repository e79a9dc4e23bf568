"""When the event loop of async calls stops and goes on, without a front: what stops it, and what it leaves behind."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest

from azureml_inference_server_http.scripting import async_calls


def test_the_front_stops_the_loop_also_after_a_new_connection(world, monkeypatch):
    monkeypatch.setattr(async_calls, "LONGEST_RUN", 3600)
    here = world("def init(): pass\nasync def run(data): return data")
    for number in range(3):
        here.front.send(b"a job")
        here.turn()
        here.start(number, data=number)
        assert here.until("returned", number) == number
        here.connect_again()
    assert here.kinds() == ["returned"] * 3


def test_a_loop_that_nothing_happens_on_stops_again_and_again(world):
    here = world("def init(): pass\nasync def run(data): return data")
    for _ in range(3):
        here.turn()
    assert here.reports == []


def test_the_end_does_not_listen_to_the_front(world):
    """A front that sends something must not keep the tasks from ending in order."""
    here = world(
        """
        ended = []
        async def init(): asyncio.ensure_future(for_ever())
        async def for_ever():
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(0.02)
                ended.append(True)
        async def run(data): return data
        """
    )
    here.turn()
    here.front.send(b"a job")
    here.script.close_loop()
    assert here.script.run.__globals__["ended"] == [True]


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop does not run there")
def test_uvloop_serves_and_ends_in_order(world, log):
    here = world(
        """
        import uvloop
        before = asyncio.get_event_loop_policy()
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        def init(): asyncio.set_event_loop_policy(before)
        async def run(data):
            await asyncio.sleep(0.001)
            return type(asyncio.get_running_loop()).__module__
        """
    )
    for number in range(6):
        if number == 3:
            here.connect_again()
        here.front.send(b"a job")
        here.turn()
        here.start(2 * number, data="")
        here.start(2 * number + 1, data="")
    assert [here.until("returned", number) for number in range(12)] == ["uvloop"] * 12
    here.script.close_loop()
    assert [text for level, _, text in log() if level != "I"] == []


def test_a_call_that_has_ended_is_freed_at_once(world):
    """Without the garbage collector, which takes a part of a short call's time."""
    here = world("def init(): pass\nasync def run(data): return len(data)")

    class Data(list):
        pass

    data = Data([1, 2])
    is_alive = weakref.ref(data)
    gc.collect()
    gc.disable()
    try:
        here.start(1, data=data)
        del data
        assert here.until("returned") == 2
        here.turn()
        assert is_alive() is None
    finally:
        gc.enable()
