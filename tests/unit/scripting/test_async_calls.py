"""The calls of an async run() on their event loop, without a front: what is reported, when, and what ends a call."""

from __future__ import annotations

import contextvars
import time
from types import SimpleNamespace

import pytest
from loading import load

from azureml_inference_server_http.scripting import async_calls, blocked_loop

NEVER = "await asyncio.sleep(3600)"


def test_calls_wait_together(world):
    here = world(
        """
        def init():
            global everybody
            everybody = []
        async def run(data):
            everybody.append(data)
            while len(everybody) < 3:
                await asyncio.sleep(0)
            return sorted(everybody)
        """
    )
    for number in range(3):
        here.start(number, data=number)
    assert [here.until("returned", number) for number in range(3)] == [[0, 1, 2]] * 3


def test_init_is_awaited_and_its_tasks_live_on_the_same_loop(world):
    here = world(
        """
        async def init():
            global ticks, ticker
            ticks = 0
            await asyncio.sleep(0)
            ticker = asyncio.ensure_future(tick())
        async def tick():
            global ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)
        async def run(data):
            return ticks
        """
    )
    here.turn()
    here.turn()
    here.start(1, data="")
    assert here.until("returned") > 2


def test_the_loop_is_that_of_the_scripts_policy(world):
    here = world(
        """
        class Mine(asyncio.SelectorEventLoop): pass
        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self): return Mine()
        before = asyncio.get_event_loop_policy()
        asyncio.set_event_loop_policy(Policy())
        def init(): asyncio.set_event_loop_policy(before)
        async def run(data): return type(asyncio.get_running_loop()).__name__
        """
    )
    here.start(1, data="")
    assert here.until("returned") == "Mine"


def test_an_exception_is_reported_with_its_place(world):
    here = world("def init(): pass\nasync def run(data):\n    await asyncio.sleep(0)\n    raise SystemExit(3)")
    here.start(1, data="")
    error = here.until("raised")
    assert isinstance(error, SystemExit)
    assert here.script.location(error).startswith("score.py:5 SystemExit") or ":5 " in here.script.location(error)


def test_a_client_that_leaves_cancels_its_call_alone(world):
    here = world(
        f"""
        ended = []
        def init(): pass
        async def run(data):
            try:
                {NEVER}
            finally:
                ended.append(data)
        """
    )
    here.start(1, data="a")
    here.start(2, data="b")
    here.turn()
    here.calls.cancel(1)
    assert here.until("left", 1) is None
    assert here.script.run.__globals__["ended"] == ["a"]
    here.turn()
    assert here.kinds() == ["left"]


def test_the_scoring_timeout_cancels_and_says_where(world):
    here = world(f"def init(): pass\nasync def run(data):\n    {NEVER}", scoring_timeout_ms=30)
    here.start(1, data="")
    error = here.until("raised")
    assert type(error) is TimeoutError
    assert here.script.location(error).endswith(":4 TimeoutError")


def test_a_call_that_catches_the_timeout_may_answer(world):
    here = world(
        f"""
        def init(): pass
        async def run(data):
            try:
                {NEVER}
            except asyncio.CancelledError:
                return "late"
        """,
        scoring_timeout_ms=30,
    )
    here.start(1, data="")
    assert here.until("returned") == "late"


def test_the_client_of_a_call_that_ignores_its_limit_is_answered(world, monkeypatch, log):
    monkeypatch.setattr(async_calls, "CANCEL_GRACE", 0.02)
    here = world(
        f"""
        def init(): pass
        async def run(data):
            while True:
                try:
                    {NEVER}
                except asyncio.CancelledError:
                    if data: break
        """,
        scoring_timeout_ms=30,
    )
    here.start(1, data="")
    assert type(here.until("raised")) is TimeoutError
    assert any("goes on" in text for _, _, text in log())
    here.turn()
    assert here.kinds() == ["raised"]


def test_worker_timeout_has_its_own_words(world):
    here = world(f"def init(): pass\nasync def run(data):\n    {NEVER}", scoring_timeout_ms=0, worker_timeout=1)
    here.start(1, data="")
    assert here.until("overdue") == "The request was not finished within 1 seconds (WORKER_TIMEOUT)."


def test_each_call_has_its_own_context_variables(world):
    here = world(
        """
        mine = contextvars.ContextVar("mine")
        def init(): pass
        async def run(data):
            mine.set(data)
            await asyncio.sleep(0)
            return mine.get()
        """
    )
    for number in range(5):
        here.start(number, data=number)
    assert [here.until("returned", number) for number in range(5)] == list(range(5))
    assert not [name for name in contextvars.copy_context() if name.name == "mine"]


def test_an_async_generator_is_a_stream_that_can_be_held(world):
    here = world("def init(): pass\nasync def run(data):\n    for part in data: yield part\n    yield b''")
    here.start(1, data="abc")
    head = here.until("streams")
    assert (head.status, head.headers, head.body) == (200, [("Content-Type", "text/plain; charset=utf-8")], b"")
    here.until("part")
    here.calls.hold(1, True)
    here.turn()
    here.turn()
    held = here.kinds().count("part")
    here.turn()
    assert here.kinds().count("part") == held < 3
    here.calls.hold(1, False)
    assert here.until("ended") is None
    assert [value for _, what, value, _ in here.reports if what == "part"] == [b"a", b"b", b"c"]


def test_a_stream_that_fails_before_its_first_part_is_an_error(world):
    here = world("def init(): pass\nasync def run(data):\n    raise ValueError('no')\n    yield 1")
    here.start(1, data="")
    assert isinstance(here.until("raised"), ValueError)
    assert here.kinds() == ["raised"]


def test_a_stream_whose_client_leaves_is_closed(world):
    here = world(
        f"""
        ended = []
        def init(): pass
        async def run(data):
            try:
                yield "a"
                {NEVER}
            finally:
                ended.append(True)
        """
    )
    here.start(1, data="")
    here.until("part")
    here.calls.cancel(1)
    assert here.until("ended") is None
    assert here.script.run.__globals__["ended"] == [True]


def test_calls_of_a_front_that_is_gone_report_nothing(world):
    here = world(f"def init(): pass\nasync def run(data):\n    {NEVER}")
    here.start(1, data="")
    here.turn()
    here.calls.abandon()
    here.turn()
    assert here.reports == []


def test_a_task_that_ends_the_process_is_heard(world):
    here = world(
        """
        async def init():
            asyncio.ensure_future(leave())
        async def leave():
            await asyncio.sleep(0.001)
            raise SystemExit(0)
        async def run(data):
            return 1
        """
    )
    with pytest.raises(SystemExit):
        here.until("nothing")


def test_the_end_cancels_what_is_left(world):
    here = world(
        f"""
        ended = []
        async def init(): asyncio.ensure_future(for_ever())
        async def for_ever():
            try:
                {NEVER}
            finally:
                ended.append(True)
        async def run(data): return 1
        """
    )
    here.turn()
    here.script.close_loop()
    assert here.script.run.__globals__["ended"] == [True]


@pytest.mark.parametrize(
    ("source", "changes", "said"),
    [
        ("def init(): pass\nasync def run(data): pass", {"worker_class": "thread"}, "run() is async, which needs"),
        ("def init(): pass\nasync def run(data): yield 1", {"worker_class": "thread"}, "run() is async, which needs"),
        ("async def init(): pass\ndef run(data): pass", {"worker_preload": True}, "init() is async, and with"),
    ],
)
def test_what_does_not_work_is_refused(settings, source, changes, said):
    with pytest.raises(Exception, match="^" + said.replace("(", r"\(").replace(")", r"\)")):
        load(SimpleNamespace(**{**vars(settings), **changes}), source)


# ---- A loop that is blocked


class Blocked(blocked_loop.BlockedLoop):
    def begin(self):
        self._seen = time.monotonic()


def test_a_blocked_loop_is_told_once_with_its_stack(log):
    watched = Blocked()
    watched.begin()
    now = time.monotonic()
    watched.look(now + 1.5)
    assert log() == []
    watched.look(now + 3.5)
    watched.look(now + 4.5)
    [(level, _, text)] = log()
    assert level == "W"
    assert "blocked for 3.5 seconds" in text
    assert "test_a_blocked_loop_is_told_once_with_its_stack" in text
    watched.end()
    assert "The event loop runs again." in log()[-1][2]
    watched.begin()
    watched.end()
    assert len(log()) == 2


@pytest.mark.parametrize(("seen", "expected"), [(None, 1), (99.9, 1), (97.5, 0.5), (97, 1), (90, 1)])
def test_a_blocked_loop_is_looked_at_when_the_limit_is_over(seen, expected):
    assert blocked_loop.pause(seen, 100) == expected


def test_a_client_that_leaves_before_the_call_has_begun_ends_it(world):
    """Its task is cancelled before it runs anything."""
    here = world(f"def init(): pass\nasync def run(data):\n    {NEVER}")
    here.start(1, data=1)
    here.calls.cancel(1)
    here.until("left", 1)
    here.turn()
    assert here.kinds() == ["left"]


def test_a_call_that_another_one_has_kept_from_going_on_may_go_on(world):
    """When the loop runs again, the time of the first call is over, and so is its wait."""
    here = world(
        """
        def init(): pass
        async def run(data):
            if data == "blocks":
                time.sleep(0.6)
            else:
                await asyncio.sleep(0.1)
            return data
        """,
        scoring_timeout_ms=300,
    )
    here.start(1, data="waits")
    here.start(2, data="blocks")
    assert here.until("returned", 2) == "blocks"
    assert here.until("returned", 1) == "waits"
