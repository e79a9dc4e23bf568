"""Lines of the log about requests, when the script has changed the logger that writes them."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import contextmanager

import pytest
from harness import eventually, is_running, request


def lines(server, text="POST /score"):
    return [line for line in server.stdout().splitlines() if text in line]


def targets(server):
    """The targets in the lines that the script's formatter has made. Fails for any other line."""
    texts = [json.loads(line)["text"] for line in lines(server)]
    assert all(re.fullmatch(r"POST /score\?\d+ 200 \d+\.\d{3}ms \d+", text) for text in texts)
    return [int(text.split("?")[1].split()[0]) for text in texts]


@contextmanager
def held_stream(server):
    """A connection whose reply, a stream to `/score?2`, has begun; the script goes on when the file
    `go` is there."""
    with server.connect() as connection:
        connection.send(request("POST", "/score?2", b"hold"))
        connection.read_head_of_stream()
        yield connection


@pytest.mark.any_worker_class
@pytest.mark.parametrize("at", ["init", "module"])
def test_a_filter_redacts_and_drops(start, at):
    server = start("own_logging.py", OWN_LOGGING="filter", OWN_LOGGING_AT=at)
    for query in ("key=secret", "drop", "last"):
        assert server.request("POST", f"/score?{query}", "x").status == 200
    found = eventually(lambda: lines(server, "/score?last") and server.records(), "the last line")
    found = [(record.message.split()[1], record.pid) for record in found if "/score?" in record.message]
    [worker] = server.ready_pids()
    assert found == [("/score?key=***", worker), ("/score?last", worker)]


@pytest.mark.any_worker_class
def test_a_formatter_formats_each_line_once(start):
    server = start("own_logging.py", "--worker_count", "2", OWN_LOGGING="formatter")
    with server.connect() as connection:
        connection.send(b"".join(request("POST", f"/score?{number}", b"x") for number in range(100)))
        assert all(connection.read().status == 200 for _ in range(100))
    eventually(lambda: len(lines(server)) >= 100, "all lines")
    assert sorted(targets(server)) == list(range(100))
    # No process has log lines left to write at the end.
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    assert sorted(targets(server)) == list(range(100))


@pytest.mark.any_worker_class
def test_a_handler_has_the_lines_of_a_request_before_the_next_is_run(start):
    server = start("own_logging.py", OWN_LOGGING="handler")
    before = server.score("x", x_ms_request_id="old").json()
    warning, line = server.score("x").json()[len(before) :]
    assert warning[0] == "WARNING"
    assert warning[1].startswith("x-ms-request-id header has been deprecated")
    assert line[0] == "INFO"
    assert re.fullmatch(r"POST /score 200 \d+\.\d{3}ms \d+", line[1])
    assert [line[2]] == server.ready_pids()
    eventually(lambda: len(lines(server)) == 2, "both lines, by the server's own handler too")
    assert len(lines(server, "deprecated")) == 1


@pytest.mark.any_worker_class
@pytest.mark.parametrize("deed", ["level", "disable"])
def test_a_level_drops_lines_of_requests_that_a_worker_served(start, deed):
    server = start("own_logging.py", OWN_LOGGING=deed)
    # A worker that logs requests gets its next one after the lines of the last.
    assert [server.score("x").status for _ in range(2)] == [200, 200]
    assert server.get("/swagger.json?version=9").status == 404
    server.wait_for_record("GET /swagger.json?version=9 404")
    assert not lines(server)


@pytest.mark.any_worker_class
def test_a_handler_that_fails_in_any_way_harms_nobody(start):
    server = start("own_logging.py", OWN_LOGGING="leave")
    for _ in range(3):
        assert server.score("x").status == 200
    eventually(lambda: len(lines(server)) == 3, "three lines")
    eventually(lambda: server.stderr().count("SystemExit: 5") == 3, "the failures")
    assert len(server.ready_pids()) == 1


@pytest.mark.any_worker_class
def test_a_stream_is_logged_while_it_goes_on(start):
    server = start("own_logging.py", OWN_LOGGING="formatter")
    answer = server.score_later("stream")
    [line] = eventually(lambda: lines(server), "the line of the stream")
    assert not answer.is_done
    assert json.loads(line)["text"].endswith("ms N/A")
    (server.folder / "go").touch()
    assert set(answer.result().text.split()) == {"part"}
    assert server.request("POST", "/score?1", "x").status == 200
    eventually(lambda: len(lines(server)) == 2, "the next line")


@pytest.mark.any_worker_class
def test_a_stream_whose_next_part_takes_long_keeps_its_line_for_the_script(start):
    server = start("own_logging.py", OWN_LOGGING="formatter")
    with held_stream(server) as connection:
        # Longer than a worker may leave a job unclaimed.
        assert connection.next_chunk() == b"part "
        assert connection.is_silent(1)
        (server.folder / "go").touch()
    [line] = eventually(lambda: lines(server, "/score?2"), "the line")
    assert json.loads(line)["level"] == "INFO"


def test_the_line_of_a_worker_that_died_is_written_all_the_same(start):
    server = start("own_logging.py", OWN_LOGGING="formatter")
    [worker] = server.workers()
    assert server.score("die").status == 500
    assert server.wait_for_record("POST /score 500").pid == worker
    assert server.request("POST", "/score?2", "x").status == 200
    found = eventually(lambda: lines(server, "/score?2"), "the line of its successor")
    assert json.loads(found[0])["level"] == "INFO"


def test_workers_that_are_replaced_log_their_last_request(start):
    server = start("own_logging.py", "--max_requests", "1", OWN_LOGGING="formatter")
    for number in range(6):
        assert server.request("POST", f"/score?{number}", "x").status == 200
    eventually(lambda: len(lines(server)) == 6, "all lines")
    assert sorted(targets(server)) == list(range(6))


def test_a_worker_that_got_term_logs_its_last_request(start):
    server = start("own_logging.py", OWN_LOGGING="formatter")
    for number in range(5):
        answer = server.request("POST", f"/score?{number}", "x")
        [worker] = server.workers()
        os.kill(worker, signal.SIGTERM)
        assert answer.status == 200
        # Not by the log, whose lines are the script's.
        eventually(lambda gone=worker: not is_running(gone), "the worker has ended")
    assert sorted(targets(server)) == list(range(5))


@pytest.mark.any_worker_class
def test_a_worker_that_is_busy_does_not_keep_a_line_from_being_written_at_the_end(start):
    server = start("own_logging.py", OWN_LOGGING="formatter")
    with held_stream(server):
        server.signal(signal.SIGINT)
        assert server.wait_for_exit() == 0
    assert len(lines(server, "POST /score?2 200")) == 1


def test_a_preloaded_script_changes_the_lines_as_well(start):
    server = start("own_logging.py", OWN_LOGGING="formatter", WORKER_PRELOAD="true")
    assert server.request("POST", "/score?1", "x").status == 200
    eventually(lambda: lines(server), "the line")
    assert targets(server) == [1]


def test_the_lines_go_the_same_way_after_the_front_died(start):
    server = start("own_logging.py", OWN_LOGGING="formatter")
    assert server.request("POST", "/score?1", "x").status == 200
    eventually(lambda: lines(server), "the first line")
    server.kill_front()
    server.wait_until_ready()
    assert server.request("POST", "/score?2", "x").status == 200
    eventually(lambda: len(lines(server)) == 2, "the second line")
    assert targets(server) == [1, 2]


CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"mine": {"format": "MINE %(levelname)s %(message)s"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "mine", "stream": "ext://sys.stdout"}},
    "loggers": {"azmlinfsrv": {"level": "INFO", "handlers": ["out"], "propagate": False}},
}


@pytest.mark.any_worker_class
def test_a_logger_of_the_users_own_file_may_be_changed_too(start):
    server = start("own_logging.py", files={"logging.json": json.dumps(CONFIG)}, OWN_LOGGING="filter")
    for query in ("key=secret", "drop", "last"):
        assert server.request("POST", f"/score?{query}", "x").status == 200
    eventually(lambda: lines(server, "/score?last"), "the last line")
    assert [line.split()[:4] for line in lines(server, "/score?")] == [
        ["MINE", "INFO", "POST", "/score?key=***"],
        ["MINE", "INFO", "POST", "/score?last"],
    ]
