"""Log records as JSON lines: the fields, long messages, and text that is no log record."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
from typing import Any

import pytest

from azureml_inference_server_http import json_log
from azureml_inference_server_http.json_log import MAX_LINE, JsonFormatter, JsonHandler, _LoggedStream
from azureml_inference_server_http.launch.stdio import finish_standard_streams

Object = dict[str, Any]


def objects(message: str, exc_info: Any = None, **extra: Any) -> list[Object]:
    """The objects of the record that a log call makes."""
    logger = logging.Logger("any.name")
    record = logger.makeRecord("any.name", logging.INFO, "file", 1, "%s", (message,), exc_info, extra=extra)
    record.created, record.msecs, record.process = 1_795_331_602.0, 7.0, 42
    lines = JsonFormatter().lines(record)
    assert all(len(line.encode()) < MAX_LINE for line in lines), [len(line.encode()) for line in lines]
    return [json.loads(line) for line in lines]


def test_a_record_is_one_object() -> None:
    assert objects("two\nlines") == [
        {
            "time": "2026-11-22T07:13:22.007Z",
            "level": "INFO",
            "logger": "any.name",
            "message": "two\nlines",
            "pid": 42,
        }
    ]


def test_ids_and_extra_are_fields() -> None:
    [found] = objects("x", request_id="r", client_request_id="", rows=17, share=0.5, flag=True, none=None, list=[1])
    assert found["request_id"] == "r"
    assert "client_request_id" not in found
    assert found["extra"] == {"rows": 17, "share": 0.5, "flag": True, "none": None, "list": "[1]"}


def test_numbers_that_json_does_not_have_are_text() -> None:
    assert objects("x", a=float("nan"), b=float("-inf"))[0]["extra"] == {"a": "nan", "b": "-inf"}


def test_a_number_that_python_does_not_write_costs_no_record() -> None:
    assert isinstance(objects("x", a=10**5000)[0]["extra"]["a"], str)


def test_a_long_name_of_a_logger_leaves_room_for_the_message() -> None:
    name = "x" * 5000
    [line] = JsonFormatter().lines(logging.Logger(name).makeRecord(name, logging.INFO, "file", 1, "y" * 2000, (), None))
    assert len(line) < MAX_LINE


def test_extra_that_has_no_room_is_counted() -> None:
    class Broken:
        def __str__(self) -> str:
            raise ValueError

    [found] = objects("x", broken=Broken(), **{f"n{number}": "x" * 5000 for number in range(9)})
    assert found["extra"]["broken"] == "<a Broken that has no text: ValueError>"
    assert found["extra"]["n0"].endswith("[... 4744 bytes left out ...]")
    assert len(found["extra"]) + found["extra_left_out"] == 10
    assert found["extra_left_out"] > 0


def test_a_traceback_is_part_of_the_message() -> None:
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        [found] = objects("It failed", exc_info=sys.exc_info())
    assert found["message"].startswith("It failed\nTraceback (most recent call last):\n")
    assert found["message"].endswith("ZeroDivisionError: by zero")
    assert found["exception"] == "ZeroDivisionError"


@pytest.mark.parametrize("unit", ["x", '"', "\\", "\x01", "é", "😀", "a\n😀\x1f"])
def test_a_long_message_is_several_objects(unit: str) -> None:
    message = unit * 9000
    found = objects(message, request_id="r")
    assert "".join(part["message"] for part in found) == message
    assert [part["part"] for part in found] == list(range(1, len(found) + 1))
    assert {(part["parts"], part["request_id"]) for part in found} == {(len(found), "r")}


def test_bytes_that_are_no_text_are_escaped() -> None:
    [found] = objects("a\udc80é", path="\udc80", **{"\ud800": "é\udfff"})
    assert found["message"] == "a\\udc80é"
    # Not as escapes of JSON, which jq refuses.
    assert found["extra"] == {"path": "\\udc80", "\\ud800": "é\\udfff"}


def test_a_record_without_text_is_an_object() -> None:
    assert objects("")[0]["message"] == ""


# ---- Standard streams


class Output(io.StringIO):
    """Where JSON lines go."""

    def objects(self) -> list[Object]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def output() -> Output:
    return Output()


@pytest.fixture
def stream(output: Output) -> _LoggedStream:
    return _LoggedStream(io.StringIO(), JsonHandler(output), "azmlinfsrv.stderr", logging.WARNING)


def messages(output: Output) -> list[str]:
    return [found["message"] for found in output.objects()]


def test_each_line_of_a_stream_is_a_record(stream: _LoggedStream, output: Output) -> None:
    print("one", "two", file=stream)
    stream.write("un")
    stream.write("finished\n\nthree\n10 %\r20 %\r")
    assert messages(output) == ["one two", "unfinished", "three", "10 %", "20 %"]
    assert output.objects()[0]["logger"] == "azmlinfsrv.stderr"
    assert output.objects()[0]["level"] == "WARNING"


class Writer(threading.Thread):
    """Writes an unfinished line, and ends it when it is told to."""

    def __init__(self, stream: _LoggedStream) -> None:
        super().__init__(name="writer")
        self._stream = stream
        self._has_begun, self._may_end = threading.Event(), threading.Event()

    def run(self) -> None:
        self._stream.write("begun ")
        self._has_begun.set()
        assert self._may_end.wait(60)
        self._stream.write("and ended\n")

    def __enter__(self) -> None:
        self.start()
        assert self._has_begun.wait(60)

    def __exit__(self, *_: object) -> None:
        self._may_end.set()
        self.join()


def test_a_flush_ends_the_unfinished_line_of_the_calling_thread_alone(stream: _LoggedStream, output: Output) -> None:
    stream.write("no end")
    with Writer(stream):
        stream.flush()
        assert messages(output) == ["no end"]
    assert messages(output) == ["no end", "begun and ended"]


def test_the_end_of_the_process_ends_the_lines_of_all_threads(
    stream: _LoggedStream, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", stream)
    with Writer(stream):
        finish_standard_streams()
        assert messages(output) == ["begun "]
        stream.write("more")
        monkeypatch.setattr(sys, "is_finalizing", lambda: True)
        stream.flush()
        assert messages(output) == ["begun ", "more"]


def test_the_line_of_a_thread_that_has_ended_is_logged_by_itself(stream: _LoggedStream, output: Output) -> None:
    thread = threading.Thread(target=stream.write, args=("of a thread",))
    thread.start()
    thread.join()
    assert messages(output) == []
    stream.write("mine")
    stream.flush()
    assert messages(output) == ["mine", "of a thread"]
    # A later thread may have the ident of one that has ended.
    thread = threading.Thread(target=stream.write, args=("no end",))
    stream._unfinished[threading.get_ident()] = (thread, "earlier")
    stream.write("later\n")
    assert messages(output)[2:] == ["earlier", "later"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_does_not_log_the_lines_of_other_threads_again(stream: _LoggedStream, output: Output) -> None:
    with Writer(stream):
        child = os.fork()
        if child == 0:
            stream.write("child")
            stream.end_all_lines()
            os._exit(messages(output) != ["child"])
        assert os.waitpid(child, 0)[1] == 0


def test_a_stream_that_cannot_be_logged_to_goes_to_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError("full")

    original = io.StringIO()
    stream = _LoggedStream(original, JsonHandler(Full()), "azmlinfsrv.stderr", logging.WARNING)
    monkeypatch.setattr(sys, "stderr", stream)
    stream.write("lost\n")
    assert "OSError: full" in original.getvalue()


def test_an_uncaught_exception_is_one_record(stream: _LoggedStream, output: Output) -> None:
    try:
        raise ValueError("in a thread")
    except ValueError as error:
        thread = threading.Thread(name="mine")
        stream.log_uncaught_in_thread(
            threading.ExceptHookArgs((ValueError, error, error.__traceback__, thread))  # type: ignore[call-arg]
        )
    [found] = output.objects()
    assert found["message"].startswith("Uncaught exception in thread mine\nTraceback ")
    assert found["exception"] == "ValueError"


def test_it_is_installed_once(monkeypatch: pytest.MonkeyPatch, stream: _LoggedStream) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    json_log.install(1)
    assert sys.stderr is stream
