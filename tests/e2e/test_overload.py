"""Many clients, large bodies and large workers: what is bounded, and that others do not notice."""

from __future__ import annotations

import contextlib
import gzip
import os
import resource
import select
from pathlib import Path

import pytest
from harness import KEPT, eventually, request
from latency import assert_fast

MIB = 1 << 20


def resident(pid):
    """MiB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


@pytest.fixture
def many_files():
    """Lets this process, and what it starts, open enough connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 5000:
        pytest.skip(f"only {hard} open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5000), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.serial
def test_two_thousand_idle_connections_harm_nobody(start, many_files):
    server = start("echo.py")
    front = server.front()
    before = resident(front)
    idle = [server.connect() for _ in range(2000)]
    # Idle connections of all kinds: nothing sent, half a head, half a body, kept alive after a
    # reply.
    for connection in idle[500:1000]:
        connection.send(b"POST /score HT")
    for connection in idle[1000:1500]:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
    for connection in idle[1500:]:
        assert connection.exchange("GET", "/", headers=KEPT).status == 200
    assert_fast(server, {"/": 200, "/score?a=1": 200})
    # 64 KiB for each would be plenty.
    assert resident(front) - before < 2000 * 64 / 1024
    assert all(connection.exchange("GET", "/", headers=KEPT).status == 200 for connection in idle[1900:])


def test_more_connections_than_descriptors_wait_for_their_turn(start):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        server = start("echo.py", ready=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    server.wait_until_ready()
    idle = [server.connect() for _ in range(150)]
    server.wait_for_record("Cannot accept a connection")
    for connection in idle[:100]:
        connection.close()
    assert idle[-1].exchange("POST", "/score", b"x").json() == "x"
    assert server.score("y").json() == "y"


@pytest.mark.parametrize("line", ["PUT /score", "PUT /nowhere", "OPTIONS /score", "GET /"])
def test_a_body_that_nobody_wants_and_that_never_ends_is_cut(shared, line):
    with shared("echo.py", "--client_timeout", "0.4", "--keep_alive", "1").connect() as connection:
        connection.send(f"{line} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe".encode())
        assert connection.read().status in (200, 404, 405)
        connection.rest()


# ---- Memory


def test_bodies_beyond_max_buffered_are_refused_and_the_memory_is_given_back(start):
    server = start("gate.py", "--max_buffered", str(10 * MIB), "--max_request_size", str(8 * MIB))
    first, second, third = (server.connect() for _ in range(3))
    body = b"x" * (6 * MIB)
    first.send(request("POST", "/score", body))
    eventually((server.folder / "started").exists, "the whole body has arrived")
    for connection in (second, third):
        connection.send(request("POST", "/score", body))
        response = connection.read()
        assert (response.status, response["retry-after"], response["connection"]) == (503, "1", "close")
        assert "--max_buffered" in response.json()["message"]
    # Small bodies still fit, and health checks have no body.
    small = server.score_later("small")
    assert server.get("/").status == 200
    (server.folder / "go").touch()
    assert first.read().status == small.result().status == 200
    with server.connect() as again:
        assert again.exchange("POST", "/score", body).status == 200


def test_unfinished_uploads_give_way_and_are_given_back_when_their_clients_leave(start):
    server = start("echo.py", "--max_buffered", str(4 * MIB), "--min_body_rate", "0")
    head = b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    for _ in range(3):
        # This body takes all the memory. It gives way when it has been late for a second.
        with server.connect() as leaving:
            leaving.send(head % (5 * MIB) + b"x" * (4 * MIB - 1000))
        eventually(lambda: not refused(server, 3 * MIB), "its memory is free again")

    def message_of_one_that_stays():
        staying = server.connect().send(head % (5 * MIB) + b"x" * (4 * MIB - 1000))
        assert not refused(server, 3 * MIB)
        response = staying.read()
        assert (response.status, response["retry-after"], response["connection"].lower()) == (503, "1", "close")
        assert "--max_buffered" in response.json()["message"]
        return response.json()["message"]

    # The memory of a request is free a moment after its client has read the answer. Until then the next one is refused
    # for that, with other words.
    eventually(lambda: "--min_body_rate" in message_of_one_that_stays(), "it gives way")


@pytest.mark.any_worker_class
@pytest.mark.parametrize("announced", [True, False], ids=["length", "chunked"])
def test_bodies_that_trickle_keep_nobody_out(start, announced):
    """Each client sends all but 100 bytes at once, and then one byte at a time. Together they would
    take all the memory."""
    server = start("raw_length.py", "--max_buffered", str(20 * MIB))
    sent = b"x" * (5 * MIB - 100)
    if announced:
        head = b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (5 * MIB)
    else:
        head = b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % (5 * MIB)
    trickling = [server.connect().send(head + sent) for _ in range(5)]
    for _ in range(8):
        for connection in trickling:
            # Some have been refused, and their connections closed.
            with contextlib.suppress(ConnectionError):
                connection.send(b"x")
        for _ in range(3):
            assert server.score(b"x" * 1_000_000).json() == 1_000_000


@pytest.mark.any_worker_class
def test_a_body_that_trickles_is_refused_after_its_grace(start):
    server = start("note.py", "--client_timeout", "5", "--min_body_rate", "1000000")
    with server.connect() as connection:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 900_000)

        def refused():
            connection.send(b"x")
            return not connection.is_silent(0.1)

        eventually(refused, "the body is refused")
        response = connection.read()
    assert response.status == 408
    assert "--min_body_rate" in response.json()["message"]
    assert (server.folder / "notes").read_text() == ""


def refused(server, size):
    with server.connect() as connection:
        response = connection.exchange("POST", "/score", b"x" * size)
        assert response.status in (200, 503)
        return response.status == 503


def test_the_memory_of_the_front_is_bounded_by_what_it_may_buffer(start):
    server = start("gate.py", "--max_buffered", str(20 * MIB))
    front = server.front()
    before = resident(front)
    connections = [server.connect() for _ in range(40)]
    answered = 0
    for connection in connections:
        connection.send(request("POST", "/score", b"x" * (2 * MIB)))
        # Bodies are answered one after the other, at the speed of the machine.
        answered += not connection.is_silent(0.02)

    def late_answers():
        return select.select([connection.socket for connection in connections], [], [], 0)[0]

    eventually(lambda: answered + len(late_answers()) >= 30, "what does not fit is refused")
    # Twice the limit, because copies and free memory of the allocator count too.
    eventually(lambda: resident(front) - before < 40, "the memory is what may be buffered")
    (server.folder / "go").touch()
    statuses = [connection.read().status for connection in connections]
    assert set(statuses) == {200, 503}
    assert statuses.count(503) >= 30


def test_the_front_gives_the_memory_of_large_bodies_back(start):
    server = start("raw_length.py")
    front = server.front()
    before = resident(front)
    for _ in range(3):
        assert server.score(b"x" * (24 * MIB)).json() == 24 * MIB
    eventually(lambda: resident(front) - before < 8, "free memory is back with the system")


def test_compressed_bodies_pass_through_untouched(start):
    """A compressed body counts with its compressed size, 100 kB here. The script decides whether to
    unpack the 100 MB."""
    server = start("raw_length.py")
    bomb = gzip.compress(b"\0" * (100 * MIB))
    before = resident(server.front())
    assert server.score(bomb, content_encoding="gzip").json() == len(bomb)
    assert server.score(bomb, content_encoding="deflate, gzip").json() == len(bomb)
    assert resident(server.front()) - before < 20


def test_a_worker_that_has_grown_too_large_is_replaced_without_a_lost_request(start):
    server = start("obey.py", "--max_worker_rss", "200")
    (before,) = server.wait_for_workers(1)
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"import builtins; builtins.kept = bytearray(300 << 20)"))
        assert connection.read().status == 200
        statuses = set()

        def replaced():
            response = connection.exchange("POST", "/score", b"answer = os.getpid()")
            statuses.add(response.status)
            return response.json() != before

        eventually(replaced, "another worker answers")
    assert statuses == {200}
    assert "--max_worker_rss" in server.wait_for_record(f"(pid:{before})").message
    assert not server.records(level="E")
