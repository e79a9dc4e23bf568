"""``testing``: what ``serve()`` makes of its arguments, and what a client makes of a reply, without
any server."""

from __future__ import annotations

import re
from email.message import Message
from pathlib import Path

import pytest

from azureml_inference_server_http.testing import Reply, TestClient, server

SERVED = ["--host", "127.0.0.1", "--port", "0", "--health_port", "0"]


def test_settings_become_variables_and_paths_stay_as_given():
    options, variables = server._command_line(
        "a/score.py",
        Path("models"),
        {"worker_count": 2, "error_details": False, "app_root": Path("a"), "queue_timeout": 0.5, "rest": True},
    )
    assert options == ["--plain", "--entry_script", "a/score.py", *SERVED, "--model_dir", "models", "--rest"]
    assert variables == {
        "WORKER_COUNT": "2",
        "AZMLINFSRV_ERROR_DETAILS": "false",
        "AML_APP_ROOT": "a",
        "AZMLINFSRV_QUEUE_TIMEOUT": "0.5",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("worker_cuont", "unknown setting 'worker_cuont' (did you mean worker_count?)"),
        ("xyzzy", "unknown setting 'xyzzy'"),
        ("port", "does not take port as a setting"),
    ],
)
def test_a_setting_that_is_none_is_refused(name, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        server._command_line("score.py", None, {name: 1})


def test_a_failure_has_the_errors_of_the_log_or_else_its_end():
    log = (
        "plain\n2026-11-30 11:28:24,606 I [1] azmlinfsrv - fine\n"
        "2026-11-30 11:28:24,757 E [1] azmlinfsrv - Traceback:\n  line\nError: x\n\n"
        "2026-11-30 11:28:24,831 I [1] azmlinfsrv - Stopped.\n"
    )
    assert server.failure("It ended.", log) == "It ended.\n\nTraceback:\n  line\nError: x"
    assert server.failure("It ended.", "a\nb\n") == "It ended.\n\na\nb"


def test_a_reply_shows_itself():
    reply = Reply(400, "Bad Request", Message(), b'{"message": "no"}')
    assert (repr(reply), reply.json()) == ('<Reply 400 Bad Request: {"message": "no"}>', {"message": "no"})
    with pytest.raises(ValueError, match="is not JSON"):
        Reply(200, "OK", Message(), b"text").json()


def test_a_client_needs_an_address_and_one_kind_of_body():
    with pytest.raises(ValueError, match="write http://HOST:PORT"):
        TestClient("localhost:5001")
    with pytest.raises(TypeError, match="json or data, not both"):
        TestClient("http://localhost:1").score(json=1, data="x")
