"""What the events of a console of Windows become; ``make test-windows`` lets servers get real ones."""

from __future__ import annotations

import pytest

from azureml_inference_server_http.supervise import console_events

CLOSED, LOGGED_OFF, SHUT_DOWN = 2, 5, 6


@pytest.mark.parametrize(
    ("event", "is_handled", "called"),
    [
        (console_events.CTRL_C, False, []),
        (console_events.CTRL_BREAK, True, ["break"]),
        # Windows ends the process as soon as the handler has returned from these.
        (CLOSED, True, ["break", "wait"]),
        (LOGGED_OFF, True, ["break", "wait"]),
        (SHUT_DOWN, True, ["break", "wait"]),
    ],
)
def test_all_but_ctrl_c_drain_the_server(event, is_handled, called):
    calls = []
    handle = console_events.handler(lambda: calls.append("break"), lambda: calls.append("wait"))
    assert (handle(event), calls) == (is_handled, called)


def test_other_systems_have_no_such_events():
    console_events.catch()
    assert console_events._kept == []
