"""Large bodies reach worker processes through shared memory: whole, unmixed, and whatever ends
meanwhile.

What the memory itself promises is tested in ``src/ipc/body_arena.rs``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import threading

import pytest
from harness import eventually, request

MIB = 1 << 20


def made_up(seed, least=MIB, most=6 * MIB):
    chance = random.Random(seed)
    return chance.randbytes(chance.randrange(least, most))


def digest(body):
    return hashlib.sha256(body).hexdigest()


def shared_files(pid):
    """The files of shared bodies that this process has open: their numbers on the system, and sizes
    in bytes."""
    found = {}
    for entry in os.scandir(f"/proc/{pid}/fd"):
        # The process may close a file meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if "azmlinfsrv-bodies" in os.readlink(entry.path):
                stat = os.stat(entry.path)
                found[stat.st_ino] = stat.st_blocks * 512
    return found


def test_front_and_workers_have_the_same_file(start):
    server = start("raw_digest.py", "--worker_count", "2")
    (file,) = shared_files(server.front())
    workers = server.wait_for_workers(2)
    # A worker gets the file when it connects, just after it has logged that it is ready.
    eventually(lambda: [list(shared_files(worker)) for worker in workers] == [[file], [file]], "both have the file")


def test_bodies_of_many_clients_do_not_mix(start):
    server = start("raw_digest.py", "--worker_count", "2")
    server.wait_for_workers(2)
    wrong = []

    def call(seed):
        with server.connect() as connection:
            for turn in range(8):
                body = made_up(seed * 100 + turn)
                answer = connection.exchange("POST", "/score", body)
                if answer.json() != digest(body):
                    wrong.append((seed, turn, answer.status))

    def leave(seed):
        for turn in range(12):
            body = made_up(seed * 100 + turn)
            whole = request("POST", "/score", body)
            with server.connect() as connection:
                # The client leaves in the middle of the body, or before the answer.
                connection.send(whole[: len(whole) // 2] if turn % 2 else whole)

    threads = [threading.Thread(target=call, args=[seed]) for seed in range(4)]
    threads += [threading.Thread(target=leave, args=[seed]) for seed in (10, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_large_body_of_unknown_length_takes_the_socket_and_arrives_whole(start):
    server = start("raw_digest.py")
    body = made_up(5)
    parts = [body[at : at + 100_000] for at in range(0, len(body), 100_000)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])
    with server.connect() as connection:
        connection.send(b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        assert connection.read().json() == digest(body)
    assert list(shared_files(server.front()).values()) == [0]


def test_a_body_that_a_stopped_worker_was_sent_reaches_another(start):
    server = start("raw_digest.py")
    (worker,) = server.wait_for_workers(1)
    body = made_up(1)
    os.kill(worker, signal.SIGSTOP)
    with server.connect() as connection:
        connection.send(request("POST", "/score", body))
        server.wait_for_record("was stopped by")
        os.kill(worker, signal.SIGKILL)
        assert connection.read().json() == digest(body)


def test_the_next_front_shares_bodies_as_well(start):
    server = start("raw_digest.py")
    (file,) = shared_files(server.front())
    server.kill_front()
    body = made_up(2)
    assert server.score(body).json() == digest(body)
    (other,) = shared_files(server.front())
    assert other != file
    assert [list(shared_files(worker)) for worker in server.workers()] == [[other]]


def test_a_worker_without_a_descriptor_for_the_file_gets_bodies_all_the_same(start, tmp_path):
    script = tmp_path / "score.py"
    # One descriptor is left for the socket.
    script.write_text(
        "import hashlib, os, resource\n"
        "from azureml_inference_server_http.api.aml_request import rawhttp\n"
        "def init():\n"
        "    free = os.open(os.devnull, os.O_RDONLY)\n"
        "    os.close(free)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))\n"
        "@rawhttp\n"
        "def run(request): return hashlib.sha256(request.get_data()).hexdigest()\n"
    )
    server = start(str(script))
    (worker,) = server.wait_for_workers(1)
    assert not shared_files(worker)
    body = made_up(3)
    assert server.score(body).json() == digest(body)


def test_the_memory_of_bodies_is_given_back(start):
    server = start("raw_digest.py")
    front = server.front()
    body = made_up(4, 20 * MIB, 24 * MIB)
    assert server.score(body).json() == digest(body)
    eventually(lambda: list(shared_files(front).values()) == [0], "the file takes no memory")


@pytest.fixture
def limited(start, tmp_path):
    """``limited(100)``: a server whose workers may use 100 MiB more address space than they have
    after ``init()``."""

    def begin(mib):
        script = tmp_path / "score.py"
        script.write_text(
            "import resource\n"
            "from azureml_inference_server_http.api.aml_request import rawhttp\n"
            "def init():\n"
            "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
            f"    resource.setrlimit(resource.RLIMIT_AS, (used + ({mib} << 20), -1))\n"
            "@rawhttp\n"
            "def run(request): return len(request.get_data())\n"
        )
        return start(str(script))

    return begin


def test_a_worker_needs_the_memory_of_a_body_once(limited):
    assert limited(160).score(b"x" * (90 * MIB)).json() == 90 * MIB


def test_a_body_that_no_worker_has_the_memory_for_is_answered(limited):
    server = limited(24)
    answer = server.score(b"x" * (60 * MIB))
    assert answer.status == 500
    assert "exited with code 1" in answer.json()["message"]
    assert server.score(b"small").json() == 5
