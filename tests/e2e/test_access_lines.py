"""Access lines for users whose logging.json names gunicorn's logger of them (contract section
13)."""

from __future__ import annotations

import json
import re

import pytest
from harness import eventually, request

pytestmark = pytest.mark.any_worker_class


def config(**logger):
    """Make a logging.json with these settings for gunicorn.access."""
    return json.dumps(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"mine": {"format": "MINE %(process)d %(name)s %(message)s"}},
            "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "mine", "stream": "ext://sys.stdout"}},
            "root": {"level": "INFO", "handlers": ["out"]},
            "loggers": {"gunicorn.access": {"handlers": ["out"], **logger}},
        }
    )


def lines(server):
    """The access lines so far: process and text without the time."""
    found = re.findall(r"^MINE (\d+) gunicorn\.access (.*)$", server.stdout(), re.MULTILINE)
    return [(int(pid), re.sub(r"\[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]", "[time]", text)) for pid, text in found]


def wait_for_lines(server, count):
    eventually(lambda: len(lines(server)) >= count, f"{count} access lines")
    return [text for _, text in lines(server)]


REQUESTS = [
    # Requests, with the published server's line for each. A health check that is exactly GET / has
    # no line.
    (request("GET", "/?x=1"), '"GET /?x=1 HTTP/1.1" 200 7 "-" "-"'),
    (request("HEAD", "/"), '"HEAD / HTTP/1.1" 200 0 "-" "-"'),
    (request("GET", "/", version="1.0"), '"GET / HTTP/1.0" 200 7 "-" "-"'),
    (request("GET", "/nope"), '"GET /nope HTTP/1.1" 404 135 "-" "-"'),
    (request("PUT", "/score"), '"PUT /score HTTP/1.1" 405 63 "-" "-"'),
    (request("GET", "http://h/x?y"), '"GET http://h/x?y HTTP/1.1" 404 135 "-" "-"'),
    (
        request("POST", "/score?a=%20b", b"x", {"User-Agent": 'my "agent"', "Referer": "http://ref/"}),
        '"POST /score?a=%20b HTTP/1.1" 200 3 "http://ref/" "my \\"agent\\""',
    ),
    (request("POST", "/score", b"x", {"User-Agent": "GET / HTTP/1.1"}), None),
    (request("GET", "/"), None),
]


def test_every_request_has_the_line_that_it_had(start):
    server = start("echo.py", files={"logging.json": config()})
    server.get("/?ready")
    before = len(wait_for_lines(server, 1))
    for bytes_sent, _ in REQUESTS:
        with server.connect() as connection:
            connection.send(bytes_sent).read(bytes_sent.split(b" ")[0].decode())
    expected = [f"127.0.0.1 - - [time] {line}" for _, line in REQUESTS if line]
    assert wait_for_lines(server, before + len(expected))[before:] == expected
    # Written by this logger's handler only, and not by the root logger's as well.
    assert len(lines(server)) == before + len(expected)


def test_the_line_has_the_process_that_served_and_the_user(start):
    server = start("echo.py", files={"logging.json": config()})
    server.score("x", authorization="Basic dXNlcjpwYXNz")
    # The line of the request, without the client, comes first.
    found = eventually(lambda: [found for found in lines(server) if "POST /score" in found[1]], "the line")
    pid, text = found[0]
    assert pid in server.workers()
    assert text.startswith("127.0.0.1 - user [time] ")


def test_the_line_of_a_stream_comes_at_its_end_with_all_bytes(start):
    server = start("stream.py", files={"logging.json": config()})
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"x")).read_head_of_stream()
        assert connection.next_chunk() == b"first,"
        eventually(lambda: "POST /score 200" in server.stdout(), "the request line")
        assert not lines(server)
        (server.folder / "x.go").touch()
        body = connection.next_chunk()
        assert connection.next_chunk() == b""
    sent = len(b"first," + body)
    assert wait_for_lines(server, 1) == [f'127.0.0.1 - - [time] "POST /score HTTP/1.1" 200 {sent} "-" "-"']


@pytest.mark.parametrize(
    "text",
    [
        config(level="WARNING"),
        json.dumps({"version": 1, "disable_existing_loggers": False}),
        json.dumps({"version": 1, "disable_existing_loggers": False, "root": {"level": "INFO"}}),
    ],
    ids=["level", "not named", "root only"],
)
def test_no_line_without_a_logger_that_wants_it(start, text):
    server = start("echo.py", files={"logging.json": text})
    server.get("/nope")
    eventually(lambda: "GET /nope 404" in server.stdout(), "the request line")
    assert "gunicorn.access" not in server.stdout() + server.stderr()


def test_no_line_without_a_logging_json(start):
    server = start("echo.py")
    server.get("/nope")
    server.wait_for_record("GET /nope 404")
    assert "gunicorn.access" not in server.output()
