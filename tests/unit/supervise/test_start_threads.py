"""The start of a server with worker threads, and the failure of its supervising thread."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from azureml_inference_server_http.supervise import start_threads
from azureml_inference_server_http.supervise.children import EXIT_FAILED


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError("can't start new thread")])
def test_a_server_that_cannot_start_says_what_is_missing(records, monkeypatch, error):
    def fail(*_):
        raise error

    class Ended(Exception):
        pass

    def end(code):
        assert code == EXIT_FAILED
        raise Ended

    monkeypatch.setattr(start_threads, "Server", fail)
    monkeypatch.setattr(start_threads.listeners, "announce", lambda settings, clients: None)
    monkeypatch.setattr(start_threads.titles, "set_name", lambda name: None)
    monkeypatch.setattr(start_threads.log_config, "find_user_config", lambda settings: "logging.json")
    monkeypatch.setattr(start_threads.process_exit, "at_once", end)
    with pytest.raises(Ended):
        start_threads.run(SimpleNamespace(exports_telemetry=False, counts_metrics=False), [])
    ((level, text),) = records()
    assert level == "CRITICAL"
    assert text.startswith(f"The server cannot start: {error.args[-1]}. Raise the limit of ")


def test_a_supervising_thread_that_fails_ends_the_server(records, monkeypatch):
    ended = []
    monkeypatch.setattr(start_threads.supervising, "run", lambda *_: 1 / 0)
    monkeypatch.setattr(start_threads.process_exit, "at_once", ended.append)
    server = start_threads.Server.__new__(start_threads.Server)
    server._state = server._threads = None
    server._settings = SimpleNamespace(display=SimpleNamespace(progress=None))
    server._supervise()
    assert ended == [EXIT_FAILED]
    assert records() == [("CRITICAL", "The supervising thread failed. The server ends.")]
