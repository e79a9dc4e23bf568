"""The request ids in log records, and ``current_request`` outside of a request."""

from __future__ import annotations

import contextvars
import logging
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from azureml_inference_server_http import api
from azureml_inference_server_http.scripting import current_request

NAMES = ("request_id", "client_request_id", "trace_id")


@dataclass
class Request:
    """What the worker loop would set."""

    request_id: str = "r"
    client_request_id: str | None = None
    trace_id: str | None = "t"
    is_finished: bool = False


@pytest.fixture(autouse=True)
def ids_in_records(monkeypatch: pytest.MonkeyPatch) -> None:
    # The fixture puts back what the function under test replaces.
    monkeypatch.setattr(logging.Logger, "makeRecord", logging.Logger.makeRecord)
    current_request.add_ids_to_log_records()


@pytest.fixture(autouse=True)
def threads_with_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", ThreadPoolExecutor.submit)
    current_request.hand_on_to_threads()
    current_request.hand_on_to_pools()


def record(request: Any = None, **extra: str) -> logging.LogRecord:
    """The record of a call ``logger.info("text", extra=…)`` that is made for a request."""

    def make() -> logging.LogRecord:
        current_request.variable.set(request)
        return logging.Logger("any").makeRecord("any", logging.INFO, "file", 1, "text", (), None, extra=extra)

    return contextvars.copy_context().run(make)


def ids(found: logging.LogRecord) -> list[str]:
    return [getattr(found, name) for name in NAMES]


def test_a_record_has_the_ids_of_its_request() -> None:
    assert ids(record(Request())) == ["r", "", "t"]
    assert ids(record(Request(client_request_id="c", trace_id=None))) == ["r", "c", ""]


def test_formatters_find_empty_ids_outside_of_requests() -> None:
    assert logging.Formatter("[%(request_id)s%(client_request_id)s%(trace_id)s]").format(record()) == "[]"


def test_extra_of_a_log_call_wins() -> None:
    assert ids(record(Request(), request_id="mine", trace_id="")) == ["mine", "", ""]


def test_the_ids_go_with_a_record_to_another_process() -> None:
    assert ids(pickle.loads(pickle.dumps(record(Request())))) == ["r", "", "t"]


def test_the_ids_are_added_once() -> None:
    make_record = logging.Logger.makeRecord
    current_request.add_ids_to_log_records()
    assert logging.Logger.makeRecord is make_record


def test_a_finished_request_leaves_no_ids() -> None:
    assert ids(record(Request(is_finished=True))) == ["", "", ""]


def in_request(function: Callable[[], Any], request: Any) -> Any:
    """What ``function`` returns if it is called while this request is current."""

    def call() -> Any:
        current_request.variable.set(request)
        return function()

    return contextvars.copy_context().run(call)


class Subclass(threading.Thread):
    """A thread with a ``run`` of its own, which keeps what it has seen."""

    def run(self) -> None:
        self.seen = api.current_request()


def test_a_thread_has_the_request_of_the_call_that_started_it() -> None:
    request = Request()
    thread = Subclass()
    in_request(thread.start, request)
    thread.join()
    assert thread.seen is request  # type: ignore[comparison-overlap]
    assert "run" not in vars(thread)


def test_a_thread_that_cannot_be_started_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = Subclass()
    thread.start()
    thread.join()
    with pytest.raises(RuntimeError):
        in_request(thread.start, Request())
    assert "run" not in vars(thread)


def test_each_function_of_a_pool_has_the_request_of_the_call_that_submitted_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        for request in (Request("1"), None, Request("2")):
            assert in_request(lambda: pool.submit(api.current_request).result(), request) is request


def test_there_is_no_request_outside_of_run() -> None:
    assert api.current_request() is None
