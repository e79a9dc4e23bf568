"""The event loop of async scripts: what it waits for, and how exactly."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import pytest

from azureml_inference_server_http.scripting import event_loop

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loop is that of Python")


@pytest.fixture
def loop():
    made = event_loop.make_loop()
    yield made
    event_loop.close(made)
    asyncio.set_event_loop(None)


@pytest.fixture
def waits(loop, monkeypatch):
    """How long the selector waits: for whole milliseconds in epoll, and for a part of one in select."""
    waited = []
    real_epoll, real_select = event_loop.selectors.EpollSelector.select, event_loop.select.select

    def in_epoll(self, timeout=None):
        if timeout != 0:
            waited.append(("epoll", timeout))
        return real_epoll(self, timeout)

    def in_select(reads, writes, fails, timeout):
        waited.append(("select", timeout))
        return real_select(reads, writes, fails, timeout)

    monkeypatch.setattr(event_loop.selectors.EpollSelector, "select", in_epoll)
    monkeypatch.setattr(event_loop.select, "select", in_select)
    return waited


def test_a_part_of_a_millisecond_is_not_rounded_up(loop, waits):
    assert loop._selector.select(0.0004) == []
    assert waits == [("select", 0.0004)]


def test_whole_milliseconds_come_first(loop, waits):
    before = time.monotonic()
    assert loop._selector.select(0.0123) == []
    assert time.monotonic() - before >= 0.012
    [(where, seconds)] = waits
    assert where == "epoll"
    assert 0.011 < seconds < 0.012


def test_what_is_ready_ends_a_wait_of_either_kind(loop):
    reader, writer = os.pipe()
    try:
        loop.add_reader(reader, loop.stop)
        os.write(writer, b".")
        for seconds in (0.0005, 30.0, None):
            [(key, _)] = loop._selector.select(seconds)
            assert key.fd == reader
    finally:
        loop.remove_reader(reader)
        os.close(reader)
        os.close(writer)


def test_sleeps_are_as_long_as_they_should_be(loop):
    async def sleep(seconds):
        before = loop.time()
        await asyncio.sleep(seconds)
        return loop.time() - before

    for seconds in (0.0003, 0.0023):
        # The shortest of many, because the machine may be busy.
        shortest = min(loop.run_until_complete(sleep(seconds)) for _ in range(100))
        assert seconds - 0.0001 < shortest < seconds + 0.0006


def test_the_loop_of_another_policy_is_left_alone(monkeypatch):
    class Mine(asyncio.SelectorEventLoop):
        pass

    monkeypatch.setattr(event_loop.asyncio, "new_event_loop", Mine)
    loop = event_loop.make_loop()
    event_loop.close(loop)
    asyncio.set_event_loop(None)
    assert type(loop) is Mine
