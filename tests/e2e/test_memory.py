"""What the front keeps of large bodies, replies and streams: nothing, two seconds after the last.

Measured is the resident memory of the front, shared memory included, against that of the idle front
before.
"""

from __future__ import annotations

import http.client
import os
from pathlib import Path

import pytest
from harness import PATIENCE, eventually

MIB = 1 << 20
# Limit in seconds for the front to return memory.
SOON = 2.0


def resident(pid):
    """MiB of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


@pytest.fixture
def connect():
    """Makes clients whose connections stay open until the test is over."""
    clients = []

    def client(server):
        clients.append(Client(server))
        return clients[-1]

    yield client
    for opened in clients:
        opened.http.close()


class Client:
    """A connection that stays open, by the standard library's client: it reads large replies in one
    piece."""

    def __init__(self, server):
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)

    def exchange(self, method, target, body=None, **options):
        self.http.request(method, target, body, **options)
        response = self.http.getresponse()
        response.read()
        return response.status


def whole(client):
    return client.exchange("GET", f"/score?total={60 * MIB}")


def stream_of_many_parts(client):
    return client.exchange("GET", f"/score?total={60 * MIB}&part={3 * MIB // 2}")


def stream_of_one_part(client):
    return client.exchange("GET", f"/score?total={60 * MIB}&part={60 * MIB}")


def shared_body(client):
    return client.exchange("POST", "/score", b"x" * (60 * MIB))


def body_of_unknown_length(client):
    return client.exchange("POST", "/score", iter([b"x" * (60 * MIB)]), encode_chunked=True)


def many_small_bodies(client):
    return {client.exchange("POST", "/score", b"x" * 100_000) for _ in range(100)}.pop()


def reply_that_nobody_reads(client):
    """Disconnect while the worker makes the reply."""
    client.http.request("GET", f"/score?total={60 * MIB}")
    client.http.close()
    return 200


def body_that_never_ends(client):
    client.http.putrequest("POST", "/score")
    client.http.putheader("Content-Length", str(60 * MIB))
    client.http.endheaders(b"x" * (30 * MIB))
    client.http.close()
    return 200


TRAFFIC = (
    whole,
    stream_of_many_parts,
    stream_of_one_part,
    shared_body,
    body_of_unknown_length,
    many_small_bodies,
    reply_that_nobody_reads,
    body_that_never_ends,
)


@pytest.mark.parametrize("traffic", TRAFFIC, ids=lambda traffic: traffic.__name__)
def test_the_front_keeps_nothing_of_large_bodies(start, connect, traffic):
    server = start("large.py", "--worker_count", "3")
    server.wait_for_workers(3)
    front = server.front()
    # Sent first, because the first request of each kind loads code, which stays in memory.
    for target in ("/score?total=10", "/score?total=10&part=5"):
        assert server.get(target).status == 200
    idle = resident(front)
    # The connections stay open, because the memory that the front keeps for each is measured too.
    clients = [connect(server) for _ in range(3)]
    assert {traffic(client) for client in clients * 2} == {200}
    assert server.score(b"x").status == 200
    eventually(lambda: resident(front) < idle * 1.1, "the memory of the idle front")


def test_memory_of_all_kinds_is_back_in_time(start, connect):
    """The time limit is that of the promise; a machine that is too busy for it gets three
    attempts."""
    server = start("large.py", "--worker_count", "2")
    front = server.front()
    assert server.get("/score?total=10").status == 200
    idle = resident(front)
    client = connect(server)

    def is_back():
        assert {traffic(client) for traffic in TRAFFIC[:5]} == {200}
        try:
            return eventually(lambda: resident(front) < idle * 1.1, "memory is back", SOON)
        except AssertionError:
            return False

    assert any(is_back() for _ in range(3)), f"{idle:.1f} MiB before, {resident(front):.1f} MiB now"


@pytest.mark.any_worker_class
def test_a_worker_keeps_nothing_of_large_bodies_and_replies(start, connect):
    server = start("large.py")
    (worker,) = server.wait_for_workers(1)
    client = connect(server)
    assert client.exchange("GET", "/score?total=10") == client.exchange("POST", "/score", b"x") == 200
    before = resident(worker)
    for _ in range(2):
        assert {traffic(client) for traffic in TRAFFIC[:5]} == {200}
    # Memory that Python's allocator may keep.
    eventually(lambda: resident(worker) - before < 20, "what bodies took is free")
