"""Bytes that a client chooses never reach the log as they are: no escape sequences, forged records
or endless lines."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator

import pytest
from harness import Server, eventually

pytestmark = pytest.mark.any_worker_class

# Characters that a terminal or a program that reads lines may act on, as bytes on the wire.
HOSTILE = {
    "escape": b"\x1b[31m",
    "bell": b"\x07",
    "backspace": b"\x08\x08",
    "tab": b"\t",
    "NUL": b"\0",
    "DEL": b"\x7f",
    "newline": b"\nforged",
    "return": b"\rforged",
    "C1 byte": b"\x9b31m",
    "C1 character": b"\xc2\x9b31m",
    "NEL": b"\xc2\x85forged",
    "bidi": b"\xe2\x80\xaegpj",
    "isolate": b"\xe2\x81\xa6x",
    "line separator": b"\xe2\x80\xa8forged",
    "no UTF-8": b"\xff\xfe\xc3",
    "long": b"x" * 60_000,
}
FIELDS = (
    "Host",
    "User-Agent",
    "Referer",
    "Origin",
    "X-Request-Id",
    "X-Ms-Request-Id",
    "X-Ms-Client-Request-Id",
    "TraceId",
    "Authorization",
    "Transfer-Encoding",
    "Content-Length",
    "Content-Type",
    "Connection",
    "Upgrade",
    "Expect",
    "X-Forwarded-For",
)
MAX_LINE = 8192 + 200
# The last request. When its line is in the log, the lines of all earlier requests are too.
END = b"GET /the-end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def grammar(text: bytes) -> Iterator[bytes]:
    """Requests with this text in every place that a request has."""
    rest = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    yield b"GET" + text + b" /score" + rest + b"\r\n"
    yield text + b" /score" + rest + b"\r\n"
    for target in (b"/" + text, b"/score?" + text, b"/score/" + text, b"/swagger.json?version=" + text, text):
        yield b"GET " + target + rest + b"\r\n"
        yield b"POST " + target + rest + b"Content-Length: 1\r\n\r\nx"
    yield b"GET http://" + text + b"/nothing" + rest + b"\r\n"
    yield b"GET /score HTTP/1.1" + text + b"\r\nHost: x\r\n\r\n"
    yield b"GET /score HTTP/" + text + b"\r\nHost: x\r\n\r\n"
    yield b"GET /nothing" + rest + text + b": x\r\n\r\n"
    for name in FIELDS:
        for value in (text, b"chunked, " + text):
            yield b"POST /score" + rest + name.encode() + b": " + value + b"\r\n\r\n"
            yield b"GET /nothing" + rest + name.encode() + b": " + value + b"\r\n\r\n"
    yield b"GET /nothing" + rest + b"Authorization: Basic " + base64.b64encode(text + b":p") + b"\r\n\r\n"
    for chunks in (
        text + b"\r\n",
        b"1;" + text + b"\r\nx\r\n0\r\n\r\n",
        b"1\r\nx" + text,
        b"0\r\n" + text + b"\r\n\r\n",
    ):
        yield b"POST /score" + rest + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    body = b'{"' + text + b'": 1}'
    yield b"POST /score" + rest + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    yield b"\x16\x03\x01" + text + b"\r\n\r\n"


def attack(server: Server) -> None:
    """Send everything, each on a connection of its own, and wait until the log has come to the end
    of it."""
    for text in HOSTILE.values():
        for request in grammar(text):
            with server.connect() as connection:
                try:
                    connection.send(request).close_sending()
                    connection.rest()
                except ConnectionError:
                    # The server may refuse before it has read everything.
                    continue
    with server.connect() as connection:
        connection.send(END)
        assert connection.read("GET").status == 404
    eventually(lambda: "GET /the-end 404" in server.stdout(), "the last line")


def assert_plain(output: bytes, beginning: str) -> None:
    """Check that every line begins like a record, is not too long, and has no control
    characters."""
    lines = output.decode("utf-8").split("\n")
    assert len(lines) > 500
    for line in lines[:-1]:
        assert re.match(beginning, line), f"no record begins like this: {line[:200]!r}"
        assert len(line.encode()) <= MAX_LINE
        wrong = [
            character
            for character in line
            if character < " "
            or "\x7f" <= character <= "\x9f"
            or "\u2028" <= character <= "\u202e"
            or "\u2066" <= character <= "\u2069"
        ]
        assert not wrong, f"{wrong} in {line[:200]!r}"
    text = "\n".join(lines)
    # The parser refuses ASCII control characters, but lets others pass.
    assert r"\x9b31m" in text
    assert r"\xe2\x80\xaegpj" in text
    assert "bytes left out ...]" in text


def served(server: Server, after: str = "ready for serving traffic") -> bytes:
    """The output since the start."""
    output = (server.folder / "stdout").read_bytes()
    return output[output.index(b"\n", output.rindex(after.encode())) + 1 :]


RECORD = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [DIWE] \[\d+\] azmlinfsrv(\.\w+)* - "


def test_the_log_of_the_server(start):
    server = start("echo.py", AZUREML_LOG_LEVEL="DEBUG")
    attack(server)
    assert_plain(served(server), RECORD)


def test_lines_that_a_script_with_a_logger_of_its_own_gets(start):
    server = start("own_logging.py", OWN_LOGGING="formatter")
    attack(server)
    # The script's formatter writes JSON, which escapes control characters too. So the text that it
    # got is checked.
    texts = [json.loads(line)["text"] for line in served(server).decode().splitlines() if line.startswith("{")]
    assert any("/score?" in text for text in texts)
    assert all(text.isprintable() for text in texts)
    assert max(map(len, texts)) <= MAX_LINE


CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"mine": {"format": "MINE %(name)s %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "mine", "stream": "ext://sys.stdout"}},
    "loggers": {
        "azmlinfsrv": {"level": "DEBUG", "handlers": ["out"], "propagate": False},
        "gunicorn.access": {"handlers": ["out"]},
    },
}


def test_a_logging_json_and_access_lines_of_the_users_own(start):
    server = start("echo.py", files={"logging.json": json.dumps(CONFIG)})
    attack(server)
    eventually(lambda: '"GET /the-end HTTP/1.1" 404' in server.stdout(), "the last access line")
    output = served(server)
    assert_plain(output, r"MINE (azmlinfsrv|gunicorn\.access)[\w.]* ")
    access = [line for line in output.decode().splitlines() if line.startswith("MINE gunicorn.access ")]
    assert any(line.endswith(r'"\x9b31m"') for line in access)
    # The user of a Basic authorization, where base64 hides it from the parser.
    assert any(r" - \x1b[31m [" in line for line in access)
