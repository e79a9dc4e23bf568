"""Replies whose headers or body are too large."""

from __future__ import annotations

import re

import pytest


@pytest.mark.any_worker_class
@pytest.mark.parametrize(
    "answer",
    [
        "flask.Response('', headers={'X-Large': 'a' * (5 << 20)})",
        "flask.Response((part for part in 'ab'), headers={'X-Large': 'a' * (5 << 20)})",
        "flask.Response('', headers=[(f'X-{i}', 'a' * 1000) for i in range(5000)])",
        "flask.Response('', status=404, headers={'X-' + 'a' * (5 << 20): ''})",
    ],
    ids=["value", "stream", "many", "name"],
)
def test_response_headers_that_are_too_large_are_named(start, answer):
    server = start("respond.py")
    workers = server.workers()
    waiting = [server.score_later("1") for _ in range(3)]
    response = server.score(answer)
    assert (response.status, response["x-ms-run-function-failed"]) == (500, "False")
    message = response.json()["message"]
    assert re.fullmatch(
        r"The headers of the scoring script's response are too large: \d+ bytes, .* 4194304 .*", message
    )
    assert message in server.wait_for_record("Encountered Exception", level="E").text
    assert [answer.result().json() for answer in waiting] == [1, 1, 1]
    assert server.score("2").json() == 2
    assert server.workers() == workers
    assert len(server.ready_pids()) == 1


@pytest.mark.any_worker_class
def test_no_header_of_many_is_lost(start):
    with start("respond.py").connect() as connection:
        made = "flask.Response('', headers=[('X', 'a')] * 70000)"
        response = connection.exchange("POST", "/score", made.encode())
    assert (response.status, len(response.values("x"))) == (200, 70_000)
