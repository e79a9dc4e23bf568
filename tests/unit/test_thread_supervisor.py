"""What the supervising thread decides, without a server; ``e2e/test_threads.py`` has the rest."""

from __future__ import annotations

import logging
import threading
from types import SimpleNamespace

import pytest

from azureml_inference_server_http import threads
from azureml_inference_server_http.supervisor import EXIT_FRONT_FAILED


@pytest.fixture
def records(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("azmlinfsrv"), "propagate", True)
    caplog.set_level(logging.DEBUG, "azmlinfsrv")
    return lambda level: [record.getMessage() for record in caplog.records if record.levelname == level]


@pytest.fixture
def supervisor(monkeypatch):
    """One that has loaded its script, with a front that the test plays and workers that end when they are let go."""
    let_go = threading.Event()

    def work(self, number, retirement, prepared):
        let_go.wait(20)

    monkeypatch.setattr(threads._Supervisor, "_work", work)
    made = threads._Supervisor(
        SimpleNamespace(worker_count=2, graceful_timeout=30, scoring_timeout_ms=1, worker_timeout=0), []
    )
    made.script_loaded(object())
    yield made
    let_go.set()
    for end in (made._line, made._line_of_front, made._wake_reader, made._wake_writer):
        end.close()


def told(supervisor):
    """What the front has been told since the last time."""
    supervisor._line_of_front.setblocking(False)
    try:
        return supervisor._line_of_front.recv(65536).decode().splitlines()
    except BlockingIOError:
        return []


def test_a_front_that_fails_is_the_end(supervisor, records):
    supervisor._front_ended(RuntimeError("a panic"))
    assert supervisor._exit_code == EXIT_FRONT_FAILED
    assert records("CRITICAL") == ["The front failed. The server ends."]


def test_a_front_that_lacks_descriptors_says_so(supervisor, records):
    supervisor._front_ended(OSError(24, "Too many open files"))
    assert supervisor._exit_code == EXIT_FRONT_FAILED
    (text,) = records("CRITICAL")
    assert text.startswith("The front failed: Too many open files. Raise the limit of open files (ulimit -n")


def test_a_front_that_ends_by_itself_is_the_end(supervisor):
    supervisor._front_ended(None)
    assert supervisor._exit_code == EXIT_FRONT_FAILED


def test_a_front_that_was_asked_to_end_is_not(supervisor, records):
    supervisor._drain()
    supervisor._front_ended(None)
    assert (supervisor._exit_code, records("CRITICAL"), told(supervisor)) == (0, [], ["drain"])


def test_threads_that_pile_up_are_told_each_time(supervisor, records):
    for number in range(1, threads.MANY_LEFT_BEHIND * 2 + 2):
        supervisor._leave_behind(number, "did not finish")
    assert len(records("CRITICAL")) == threads.MANY_LEFT_BEHIND * 2 + 1
    stuck = [text for text in records("ERROR") if "threads are stuck in calls of run()" in text]
    assert [text.split()[0] for text in stuck] == ["16", "17"]
    assert len(supervisor._workers) == 2


def test_a_thread_that_comes_back_late_is_not_replaced_again(supervisor, records):
    supervisor._leave_behind(1, "did not finish")
    supervisor._worker_ended(1, None)
    assert (supervisor._left_behind, sorted(supervisor._workers)) == (set(), [2, 3])
    assert records("INFO")[-1] == "The call of worker thread 1 has returned, and the thread has ended."


def test_a_worker_that_fails_is_replaced_after_a_while(supervisor, records):
    supervisor._worker_ended(1, RuntimeError("what should not happen"))
    assert records("ERROR") == ["Worker thread 1 ended unexpectedly."]
    assert told(supervisor) == ["exited 1 ended unexpectedly"]
    assert supervisor._seconds_to_wait() > 0
    supervisor._fill_up_at = 0.0
    supervisor._do_what_is_due()
    assert sorted(supervisor._workers) == [2, 3]


def test_a_thread_that_cannot_be_started_is_tried_again(supervisor, records, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    supervisor._add_worker()
    assert (len(supervisor._workers), len(records("ERROR"))) == (2, 1)
    assert supervisor._fill_up_at is not None


def test_the_last_worker_stays(supervisor):
    for _ in range(3):
        supervisor._remove_worker()
    assert (supervisor._staying(), told(supervisor)) == ([1], ["retire 2"])


def test_lines_of_the_front_may_come_in_pieces(supervisor):
    supervisor._line_of_front.send(b"ready 1\nkill 1 did not fi")
    supervisor._read_line(None)
    assert sorted(supervisor._workers) == [1, 2]
    supervisor._line_of_front.send(b"nish\n")
    supervisor._read_line(None)
    assert sorted(supervisor._workers) == [2, 3]


def test_a_thread_that_the_system_refuses_is_told_once_and_tried_again(supervisor, records, monkeypatch):
    class Refused(threading.Thread):
        def start(self):
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading, "Thread", Refused)
        for _ in range(3):
            supervisor._leave_behind(max(supervisor._workers), "did not finish")
            assert supervisor._fill_up_at is not None
            if len(supervisor._workers) == 0:
                break
    (text,) = [text for text in records("ERROR") if "start a worker thread" in text]
    assert text.endswith("Trying again every second.")
    assert "ulimit -u" in text
    supervisor._fill_up()
    assert len(supervisor._workers) == 2


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError("can't start new thread")])
def test_a_server_that_cannot_start_says_what_is_missing(records, monkeypatch, error):
    def fail(*_):
        raise error

    class Ended(Exception):
        pass

    def end(code):
        assert code == EXIT_FRONT_FAILED
        raise Ended

    monkeypatch.setattr(threads, "_Supervisor", fail)
    monkeypatch.setattr(threads.listeners, "announce", lambda settings: None)
    monkeypatch.setattr(threads.titles, "set_name", lambda name: None)
    monkeypatch.setattr(threads.log_config, "find_user_config", lambda settings: "logging.json")
    monkeypatch.setattr(threads.ending, "at_once", end)
    with pytest.raises(Ended):
        threads.run(SimpleNamespace(), [])
    (text,) = records("CRITICAL")
    assert text.startswith(f"The server cannot start: {error.args[-1]}. Raise the limit of ")
