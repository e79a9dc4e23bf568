"""The short run of the fuzzer of the HTTP surface: the same cases every time. ``python -m
tests.fuzz`` runs longer."""

from __future__ import annotations

import dataclasses
from random import Random
from typing import Any

import pytest
from strict_http import Malformed

from . import http_framings, http_surface
from .http_grammar import HALF_CLOSE, WAIT, Case, draw
from .http_surface import Failure, MixedUp


@pytest.fixture(scope="module")
def report(shared: Any) -> http_surface.Report:
    server = shared(http_surface.SCRIPT, *http_surface.OPTIONS, AZUREML_LOG_LEVEL="ERROR")
    return http_surface.run(server, seed=20261122, cases=1440)


@pytest.mark.timeout(180)
def test_whatever_is_sent_the_server_keeps_its_manners(report: http_surface.Report) -> None:
    assert not report.failures, str(report)
    # The cases reach the places that they were made for.
    assert {100, 200, 400, 404, 405, 408, 413, 414, 431, 501} <= set(report.statuses), str(report)


def test_pipelined_requests_do_not_mix(report: http_surface.Report) -> None:
    assert not report.mixed_up, str(report)


@pytest.mark.timeout(180)
def test_every_request_has_its_own_answer_however_it_is_framed(shared: Any) -> None:
    server = shared(http_surface.SCRIPT, *http_surface.OPTIONS, AZUREML_LOG_LEVEL="ERROR")
    report = http_surface.run(server, seed=20261130, cases=960, draw=http_framings.draw, name="HTTP framings")
    assert not report.failures, str(report)
    assert not report.mixed_up, str(report)
    assert {200, 400, 405, 501} <= set(report.statuses), str(report)


def test_a_seed_names_a_case() -> None:
    assert draw(Random("1/7")) == draw(Random("1/7")) != draw(Random("1/8"))


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    "received",
    [
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno",
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad name: x\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}" + OK,
        b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n{}",
    ],
)
def test_bad_manners_are_noticed(received: bytes) -> None:
    with pytest.raises((Failure, Malformed)):
        http_surface.judge(Case((b"x",), WAIT), received)


@pytest.mark.parametrize(
    ("received", "closes"),
    [(OK + OK, True), (OK.replace(b"c", b"connection: close\r\nc", 1) + OK, False), (OK, False), (OK + b"HTTP", False)],
)
def test_mixed_up_answers_are_noticed(received: bytes, closes: bool) -> None:
    case = Case((b"x",), WAIT, ((200, b"{}"), (200, b"{}")), ("POST", "POST"), closes)
    assert http_surface.judge(dataclasses.replace(case, closes=False), OK + OK)
    with pytest.raises(MixedUp):
        http_surface.judge(case, received)


def test_good_manners_are_not() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"
    assert len(http_surface.judge(Case((b"x",), WAIT), OK + chunked + OK)) == 3
    assert len(http_surface.judge(Case((b"HEAD /",), WAIT), OK + head + OK)) == 3
    assert http_surface.judge(Case((b"x",), HALF_CLOSE), b"") == []
