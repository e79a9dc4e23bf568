"""Which scheduler a worker waits with. What comes of it is in e2e/test_schedulers.py."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from azureml_inference_server_http.scripting import cooperative
from azureml_inference_server_http.scripting.cooperative import Waiter


@pytest.fixture
def loop(monkeypatch):
    """A loop that is set for this thread. A worker runs it at once, because the waiting time is set
    to 0."""
    monkeypatch.setattr(cooperative, "GRACE", 0.0)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    asyncio.set_event_loop(None)
    if not loop.is_closed():
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.fixture
def pair():
    reader, writer = socket.socketpair()
    with reader, writer:
        yield reader, writer


def left_behind(loop, done):
    async def task():
        for _ in range(3):
            await asyncio.sleep(0)
        done.append(True)
        await asyncio.sleep(3600)

    return loop.create_task(task())


def test_no_scheduler_means_a_native_wait(pair):
    asyncio.set_event_loop(None)
    assert Waiter(False).wait(pair[0].fileno(), 60) is False


def test_a_loop_without_tasks_is_not_run(loop, pair):
    assert Waiter(False).wait(pair[0].fileno(), 60) is False


def test_tasks_run_until_the_time_is_over(loop, pair):
    done = []
    left_behind(loop, done)
    assert Waiter(False).wait(pair[0].fileno(), 0.01) is True
    assert done
    assert not loop.is_running()
    assert not loop.remove_reader(pair[0].fileno())


def test_the_wait_ends_when_there_is_something_to_read(loop, pair):
    left_behind(loop, [])
    pair[1].send(b"x")
    assert Waiter(False).wait(pair[0].fileno(), 3600) is True


def test_a_script_may_go_on_using_the_loop(loop, pair):
    left_behind(loop, [])
    waiter = Waiter(False)
    for _ in range(2):
        assert waiter.wait(pair[0].fileno(), 0) is True
        assert loop.run_until_complete(asyncio.sleep(0, "result")) == "result"


def test_a_loop_has_to_be_idle_for_a_while(loop, pair, monkeypatch):
    monkeypatch.setattr(cooperative, "GRACE", 3600)
    left_behind(loop, [])
    assert Waiter(False).wait(pair[0].fileno(), 60) is False


def test_an_inherited_loop_is_not_run_and_a_new_one_is(loop, pair):
    left_behind(loop, [])
    waiter = Waiter(True)
    assert waiter.wait(pair[0].fileno(), 60) is False
    other = asyncio.new_event_loop()
    asyncio.set_event_loop(other)
    task = left_behind(other, [])
    assert waiter.wait(pair[0].fileno(), 0) is True
    task.cancel()
    other.run_until_complete(asyncio.sleep(0))
    other.close()


def test_a_loop_that_another_thread_has_run_is_not_run_ever(loop, pair):
    left_behind(loop, [])
    waiter = Waiter(False)
    running, stopped = threading.Event(), threading.Event()

    def run():
        loop.call_soon(running.set)
        loop.run_forever()
        stopped.set()

    threading.Thread(target=run).start()
    assert running.wait(20)
    assert waiter.wait(pair[0].fileno(), 60) is False
    loop.call_soon_threadsafe(loop.stop)
    assert stopped.wait(20)
    assert waiter.wait(pair[0].fileno(), 60) is False


def test_what_a_task_lets_out_is_raised_and_leaves_the_loop_usable(loop, pair):
    async def leave():
        raise SystemExit(5)

    task = loop.create_task(leave())
    left_behind(loop, [])
    waiter = Waiter(False)
    with pytest.raises(SystemExit):
        waiter.wait(pair[0].fileno(), 60)
    assert isinstance(task.exception(), SystemExit)
    assert waiter.wait(pair[0].fileno(), 0) is True


def test_a_task_may_stop_the_loop(loop, pair):
    async def stop():
        loop.stop()

    task = loop.create_task(stop())
    left_behind(loop, []).add_done_callback(lambda _: None)
    assert Waiter(False).wait(pair[0].fileno(), 60) is True
    assert task.done()
