"""What a worker process does about signals, without a server; ``e2e/test_script_ends.py`` has the
rest."""

from __future__ import annotations

import signal
import sys

import pytest

from azureml_inference_server_http.scripting import worker
from azureml_inference_server_http.supervise import signal_handlers


@pytest.fixture
def retirement():
    """A retirement whose signal handlers are installed."""
    made = worker.SignalledRetirement()
    before = {number: signal.getsignal(number) for number in made.handlers()}
    signal_handlers.install(made.handlers())
    yield made
    signal_handlers.install(before)


def test_term_asks_a_worker_to_go(retirement):
    assert not retirement()
    signal.raise_signal(signal.SIGTERM)
    assert (retirement(), retirement.is_hurried) == (True, False)


def test_quit_asks_a_worker_to_go_at_once(retirement):
    signal.raise_signal(signal.SIGQUIT)
    assert (retirement(), retirement.is_hurried) == (True, True)


def test_a_handler_of_the_script_is_kept_for_the_end(retirement):
    called = []
    signal.signal(signal.SIGTERM, lambda *_: called.append(True))
    assert not retirement()
    signal.raise_signal(signal.SIGTERM)
    assert (retirement(), called) == (True, [])
    retirement.script_handler(signal.SIGTERM, None)
    assert called == [True]


@pytest.mark.parametrize("action", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_script_cannot_make_its_worker_deaf(retirement, action):
    signal.signal(signal.SIGTERM, action)
    assert not retirement()
    signal.raise_signal(signal.SIGTERM)
    assert (retirement(), retirement.script_handler) == (True, None)


def test_the_question_before_each_request_makes_no_enum():
    # The C function, because signal.getsignal takes several microseconds.
    assert worker._handler_of is sys.modules["_signal"].getsignal
