"""print() becomes a log record, and only what goes to stdout (contract section 13)."""

from __future__ import annotations

import contextlib
import io
import logging
import sys

import pytest

from azureml_inference_server_http import print_log_hook

LOGGER = logging.getLogger("azmlinfsrv.print")


class Collector(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    @property
    def lines(self):
        return [(record.name, record.levelname, record.getMessage()) for record in self.records]


@contextlib.contextmanager
def hook(handler=None):
    """Install the hook with a stdout of its own. This is no fixture, because pytest replaces
    sys.stdout between set-up and test."""
    collector, stdout = handler or Collector(), io.StringIO()
    kept = sys.stdout, sys.__stdout__, LOGGER.level
    LOGGER.addHandler(collector)
    LOGGER.setLevel(logging.INFO)
    sys.stdout = sys.__stdout__ = collector.stdout = stdout
    print_log_hook.install()
    try:
        yield collector
    finally:
        print_log_hook.uninstall()
        sys.stdout, sys.__stdout__ = kept[:2]
        LOGGER.setLevel(kept[2])
        LOGGER.removeHandler(collector)


def info(*messages):
    return [("azmlinfsrv.print", "INFO", message) for message in messages]


def test_objects_are_joined_and_end_is_ignored():
    with hook() as log:
        print("a", 1, None)
        print("a", "b", sep="-", end="zz", flush=True)
        print("a", "b", sep=None)
    assert log.lines == info("a 1 None", "a-b", "a b")
    assert log.stdout.getvalue() == ""


def test_empty_multi_line_and_percent_are_one_record_each():
    with hook() as log:
        print()
        print("one\ntwo")
        print("100%s", "%d")
    assert log.lines == info("", "one\ntwo", "100%s %d")


def test_file_argument(capsys):
    buffer = io.StringIO()
    with hook() as log:
        print("to stderr", file=sys.stderr)
        print("to stdout", file=sys.stdout)
        print("to buffer", file=buffer)
    assert log.lines == info("to stdout")
    assert capsys.readouterr().err == "to stderr\n"
    assert buffer.getvalue() == "to buffer\n"


def test_redirected_stdout_gets_its_text():
    buffer = io.StringIO()
    with hook() as log, contextlib.redirect_stdout(buffer):
        print("captured")
    assert buffer.getvalue() == "captured\n"
    assert log.lines == []


def test_wrapper_around_the_real_stdout_still_logs(monkeypatch):
    class Tee:
        def fileno(self):
            return 1

    with hook() as log:
        monkeypatch.setattr(sys, "stdout", Tee())
        print("x")
    assert log.lines == info("x")


@pytest.mark.parametrize("keywords", [{"foo": 1}, {"sep": 3}, {"end": 3}])
def test_wrong_keywords_raise_the_normal_error(keywords):
    with pytest.raises(TypeError) as expected:
        print("a", "b", **keywords)
    with hook() as log, pytest.raises(TypeError) as caught:
        print("a", "b", **keywords)
    assert str(caught.value) == str(expected.value)
    assert log.lines == []


def test_handler_that_prints_does_not_recurse():
    class Printing(Collector):
        def emit(self, record):
            super().emit(record)
            print("from the handler")

    with hook(Printing()) as log:
        print("x")
    assert log.lines == info("x")
    assert log.stdout.getvalue() == "from the handler\n"


def test_error_in_str_of_an_object_is_raised_and_the_hook_stays_usable():
    class Bad:
        def __str__(self):
            raise ValueError("no text")

    with hook() as log:
        with pytest.raises(ValueError, match="no text"):
            print(Bad())
        print("after")
    assert log.lines == info("after")


def test_install_twice_and_uninstall():
    original = print
    with hook() as log:
        print_log_hook.install()
        assert print is not original
        assert print.__name__ == "print"
        print("once")
    assert print is original
    assert log.lines == info("once")
