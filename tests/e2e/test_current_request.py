"""``api.current_request()``, and the request ids in log records."""

from __future__ import annotations

import json
import re

import pytest
from harness import eventually

pytestmark = pytest.mark.any_worker_class

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
IDS = {"x_request_id": "r", "x_ms_client_request_id": "c", "traceparent": PARENT}
LOGGING = json.dumps(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"mine": {"format": "MINE [%(request_id)s|%(client_request_id)s|%(trace_id)s] %(message)s"}},
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "mine", "stream": "ext://sys.stdout"}},
        "root": {"level": "INFO", "handlers": ["out"]},
        "loggers": {"azmlinfsrv": {"level": "INFO", "handlers": ["out"], "propagate": False}},
    }
)


def ids_of(server, message):
    """The ids in the lines with this message, once there is one."""
    pattern = re.compile(rf"^MINE \[(.*)\] {re.escape(message)}", re.MULTILINE)
    return eventually(lambda: pattern.findall(server.stdout()), f"the line {message!r}")


def test_run_sees_its_request_and_nothing_outside_does(start):
    server = start("current_request.py", SCORING_TIMEOUT_MS="60000")
    facts = server.score("x", **IDS).json()
    *ids, left = facts["here"]
    assert ids == ["r", "c", TRACE, PARENT]
    assert 0 < left <= 60
    assert facts["outside"] == [None, [None]]
    elsewhere = [facts["thread"], *facts["pool"], *facts["tasks"]]
    assert [found[:4] for found in elsewhere] == [ids] * 5
    assert facts["traceparent"] == PARENT


def test_a_request_without_ids_has_the_id_of_its_reply(start):
    server = start("current_request.py", SCORING_TIMEOUT_MS="0", WORKER_TIMEOUT="0")
    for traceparent in ({}, {"traceparent": PARENT.upper()}):
        reply = server.score("x", **traceparent)
        assert reply.json()["here"] == [reply["x-request-id"], None, None, None, None]


def test_each_request_has_its_own(start):
    server = start("current_request.py", "--worker_count", "2")
    replies = [server.score_later("x", x_request_id=f"id-{number}") for number in range(20)]
    assert [reply.result().json()["here"][0] for reply in replies] == [f"id-{number}" for number in range(20)]


def test_log_records_have_the_ids_of_their_request(start):
    server = start("current_request.py", files={"logging.json": LOGGING})
    ids = f"r|c|{TRACE}"
    assert server.score("log", **IDS).status == 200
    assert server.score("raise", **IDS).status == 500
    for message in (
        "printed",
        "logged",
        "in a thread",
        "in a pool",
        "in a copy of the context",
        "Encountered Exception",
    ):
        assert ids_of(server, message) == [ids], message
    assert ids_of(server, "its own") == [f"mine|c|{TRACE}"]
    for message in ("in init", "Users's init has completed successfully"):
        assert ids_of(server, message) == ["||"], message


def test_a_thread_that_outlives_its_request_has_none(start):
    server = start("current_request.py")
    assert server.score("outlive").status == 200
    assert server.score("afterwards").json() == [None]


def test_a_stream_has_the_ids_to_its_end(start):
    server = start("current_request.py", files={"logging.json": LOGGING})
    for request in ("first", "second"):
        assert server.score("stream", x_request_id=request).text == f"{request};" * 3
    for part in range(3):
        assert ids_of(server, f"part {part}") == ["first||", "second||"]
