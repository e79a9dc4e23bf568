"""Responses made from generators: part by part, however long they take (contract sections 7 and
11)."""

from __future__ import annotations

import pytest
from harness import eventually, request

pytestmark = pytest.mark.any_worker_class

SECOND = "sécond".encode()


def test_parts_arrive_as_they_are_made(start):
    server = start("stream.py")
    with server.connect() as connection:
        head = connection.send(request("POST", "/score", b"name")).read_head_of_stream()
        assert (head.status, head["content-type"]) == (200, "text/html; charset=utf-8")
        assert (head["content-length"], head["x-ms-run-function-failed"]) == (None, "False")
        assert head["x-ms-run-fn-exec-ms"]
        assert head["x-request-id"]
        assert connection.next_chunk() == b"first,"
        (server.folder / "name.go").touch()
        # The empty part between the two is not sent: it would end the message.
        assert connection.next_chunk() == SECOND
        assert connection.next_chunk() == b""
        # The connection stays open.
        assert connection.exchange("POST", "/score", b"name").body == b"first," + SECOND
    assert server.wait_for_record("POST /score 200").message.endswith("ms N/A")


def test_http_1_0_gets_a_stream_until_the_end_of_the_connection(start):
    server = start("stream.py")
    with server.connect() as connection:
        connection.send(b"POST /score HTTP/1.0\r\nContent-Length: 4\r\n\r\nname")
        head = connection.read("HEAD")
        assert (head.version, head.status) == ("HTTP/1.0", 200)
        assert (head["transfer-encoding"], head["content-length"]) == (None, None)
        assert connection.exactly(6) == b"first,"
        (server.folder / "name.go").touch()
        assert connection.rest() == SECOND


def test_a_stream_that_fails_at_once_is_an_error_reply(shared):
    server = shared("stream_fails_early.py")
    response = server.score()
    assert response.status == 500
    assert set(response.json()) == {"message"}
    assert "no first part" in server.records(level="E")[-1].text
    assert server.score().status == 500


def test_a_stream_that_fails_midway_is_cut(start):
    server = start("stream.py")
    (server.folder / "broken.go").touch()
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"broken")).read_head_of_stream()
        assert connection.next_chunk() == b"first,"
        with pytest.raises(ConnectionError):
            connection.next_chunk()
    record = server.wait_for_record("Encountered Exception", level="E")
    assert "ValueError: broken in the middle" in record.text
    (server.folder / "fine.go").touch()
    assert server.score("fine").body == b"first," + SECOND


def test_a_client_that_leaves_closes_the_generator(start):
    server = start("stream_for_ever.py")
    (worker,) = server.workers()
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"stream")).read_head_of_stream()
        assert connection.next_chunk() == b"more,"
    eventually((server.folder / "closed").exists, "the generator is closed")
    assert server.score("plain").json() == "plain"
    assert server.workers() == [worker]
    assert not server.records(level="E")


def test_a_client_that_reads_slowly_holds_up_nobody_else_for_ever(start):
    server = start("stream_for_ever.py", "--worker_count", "2")
    server.wait_for_workers(2)
    with server.connect() as slow:
        slow.send(request("POST", "/score", b"stream")).read_head_of_stream()
        for _ in range(20):
            assert server.score("plain").json() == "plain"
        assert slow.next_chunk() == b"more,"


@pytest.mark.parametrize(("declared", "body"), [(3, b"abc"), (2, b"ab")])
def test_a_declared_length_frames_a_stream(shared, declared, body):
    # The type in which Flask leaves an iterable unread, with a length of its own.
    expression = f"flask.Response(iter(['a', 'bc']), headers={{'Content-Length': '{declared}'}})"
    with shared("respond.py").connect() as connection:
        response = connection.exchange("POST", "/score", expression.encode())
        assert (response["transfer-encoding"], response["content-length"]) == (None, str(declared))
        assert response.body == body
        if declared == 3:
            assert connection.exchange("POST", "/score", b"'next'").json() == "next"
