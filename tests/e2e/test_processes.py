"""Death, replacement and number of processes, and what clients notice of it: as little as possible
(docs/design.md)."""

from __future__ import annotations

import os
import signal

import pytest
from harness import eventually, is_running, request

KILLED = "was killed by signal 9 (SIGKILL)"


def lost(cause):
    """The body for the request that a lost worker was running."""
    return {"message": f"The worker process running this request {cause}. The request was not finished."}


def begin(server, name):
    """A request to wait.py that runs; how to get its answer, and the pid of its worker."""
    answer = server.score_later(name)
    started = server.folder / f"{name}.started"
    eventually(started.exists, f"{name} runs")
    return answer, int(started.read_text())


def let_go(server, *names):
    for name in names:
        (server.folder / f"{name}.go").touch()


# ---- Workers that die


def test_two_workers_run_at_the_same_time(start):
    server = start("wait.py", "--worker_count", "2")
    (first, one), (second, two) = begin(server, "a"), begin(server, "b")
    assert {one, two} == set(server.wait_for_workers(2))
    let_go(server, "a", "b")
    assert (first.result().json(), second.result().json()) == (one, two)


def test_idle_workers_that_are_killed_are_replaced(start):
    server = start("pid.py", "--worker_count", "2")
    before = server.wait_for_workers(2)
    with server.connect() as connection:
        assert connection.exchange("POST", "/score").json() in before
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(is_running, before)), "the workers are dead")
        response = connection.exchange("POST", "/score")
    after = server.wait_for_workers(2, instead_of=before)
    assert response.json() in after
    for pid in before:
        record = server.wait_for_record(f"Worker (pid:{pid}) {KILLED}.")
        assert (record.level, record.logger) == ("E", "azmlinfsrv")


def test_only_running_requests_fail_when_all_workers_are_killed(start):
    server = start("wait.py", "--worker_count", "2")
    with server.connect() as guilty, server.connect() as other, server.connect() as queued:
        for connection, name in ((guilty, "a"), (other, "b")):
            connection.send(request("POST", "/score", name.encode()))
            eventually((server.folder / f"{name}.started").exists, f"{name} runs")
        queued.send(request("POST", "/score", b"c"))
        killed = [int((server.folder / f"{name}.started").read_text()) for name in "ab"]
        let_go(server, "c", "d")
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        for connection in (guilty, other):
            response = connection.read()
            assert (response.status, response.json()) == (500, lost(KILLED))
            assert response["x-ms-run-function-failed"] == "True"
            assert response["x-ms-run-fn-exec-ms"] is None
            assert response["x-request-id"]
        assert queued.read().json() not in killed
        # No connection was closed.
        for connection in (guilty, other, queued):
            assert connection.exchange("POST", "/score", b"d").json() not in killed


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_script_that_exits_fails_its_own_request(start, code):
    server = start("exit_in_run.py")
    with server.connect() as connection:
        response = connection.exchange("POST", "/score", b"exit %d" % code)
        assert (response.status, response.json()) == (500, lost(f"exited with code {code}"))
        assert connection.exchange("POST", "/score", b"next").json() == "next"


def test_a_segfault_fails_its_own_request_and_shows_where(start):
    server = start("segfault.py")
    response = server.score("crash")
    assert (response.status, response.json()) == (500, lost("was killed by signal 11 (SIGSEGV)"))
    assert server.score("next").json() == "next"
    assert "Fatal Python error: Segmentation fault" in server.stderr()
    assert "segfault.py" in server.stderr()


def test_jobs_that_a_dying_worker_had_not_started_are_run_by_the_next(start):
    server = start("exit_in_run.py")
    with server.connect() as warm:
        # Fast answers open the in-flight window, so that the worker has several jobs when it dies.
        for _ in range(50):
            assert warm.exchange("POST", "/score", b"fast").status == 200
    connections = [server.connect() for _ in range(16)]
    connections[0].send(request("POST", "/score", b"exit 1"))
    for number, connection in enumerate(connections[1:]):
        connection.send(request("POST", "/score", b"%d" % number))
    assert connections[0].read().json() == lost("exited with code 1")
    assert [connection.read().json() for connection in connections[1:]] == list(map(str, range(15)))


def test_a_child_that_outlives_its_worker_does_not_hold_up_the_answer(start):
    server = start("leave_child.py")
    response = server.score("leave")
    assert (response.status, response.json()) == (500, lost("exited with code 9"))
    assert server.score("next").json() == "next"
    child = int((server.folder / "child").read_text())
    assert is_running(child)
    (server.folder / "go").touch()
    eventually(lambda: not is_running(child), "the child has ended")


def test_a_stream_whose_worker_is_killed_is_cut(start):
    server = start("stream.py")
    (worker,) = server.wait_for_workers(1)
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"name")).read_head_of_stream()
        assert connection.next_chunk() == b"first,"
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(ConnectionError):
            connection.next_chunk()
    (server.folder / "name.go").touch()
    assert server.score("name").body == "first,sécond".encode()


def test_term_to_a_worker_lets_it_finish_and_replaces_it(start):
    server = start("wait.py")
    answer, worker = begin(server, "a")
    os.kill(worker, signal.SIGTERM)
    later = server.score_later("b")
    let_go(server, "a", "b")
    assert answer.result().json() == worker
    assert later.result().json() != worker
    server.wait_for_workers(1, instead_of=[worker])
    assert not server.records(level="E")


def test_workers_that_never_get_ready_end_the_command(start):
    server = start("exit_in_init.py", ready=False)
    assert server.wait_for_exit() == 3
    tries = len((server.folder / "inits").read_text().split())
    assert tries >= 3
    (record,) = server.records(level="C")
    assert record.message.startswith(f"{tries} workers in a row died before they were ready")
    assert "exited with code 7" in record.message


def test_a_preloaded_script_is_started_once(start):
    server = start("wait.py", "--worker_count", "2", WORKER_PRELOAD="true")
    let_go(server, "a")
    before = server.wait_for_workers(2)
    os.kill(before[0], signal.SIGKILL)
    assert server.score("a").json() in server.wait_for_workers(2, instead_of=[before[0]])
    assert list(map(int, (server.folder / "inits").read_text().split())) == server.templates()


# ---- The front and the supervisor die


def test_a_killed_front_is_replaced_and_the_workers_stay(start):
    server = start("wait.py", "--worker_count", "2")
    workers = server.wait_for_workers(2)
    let_go(server, "a")
    assert server.score("a").json() in workers
    front = server.kill_front()
    # No connection is refused meanwhile, because the listener outlives the front.
    assert server.score("a").json() in workers
    assert server.front() != front
    (first, one), (second, two) = begin(server, "b"), begin(server, "c")
    assert {one, two} == set(workers)
    let_go(server, "b", "c")
    assert (first.result().json(), second.result().json()) == (one, two)
    assert sorted(map(int, (server.folder / "inits").read_text().split())) == sorted(workers)
    assert server.wait_for_record(f"The front process (pid:{front}) {KILLED}.").level == "E"


def test_a_request_that_runs_while_the_front_dies_does_not_harm_its_worker(start):
    server = start("wait.py")
    front = server.front()
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"a"))
        eventually((server.folder / "a.started").exists, "a runs")
        os.kill(front, signal.SIGKILL)
        connection.assert_closed()
    let_go(server, "a", "b")
    assert server.score("b").json() == int((server.folder / "a.started").read_text())


def test_a_killed_supervisor_takes_everything_along(start):
    server = start("wait.py", "--worker_count", "2")
    server.wait_for_workers(2)
    begin(server, "running")
    members = server.members()
    assert len(members) == 4
    server.signal(signal.SIGKILL)
    eventually(lambda: not any(map(is_running, members)), "all processes are gone")


# ---- Signals


def test_hup_replaces_all_workers_and_fails_no_request(start):
    server = start("pid.py", "--worker_count", "2")
    before = set(server.wait_for_workers(2))
    with server.under_load() as answers:
        server.signal(signal.SIGHUP)
        eventually(lambda: not any(map(is_running, before)), "the old workers are gone")
        after = set(server.wait_for_workers(2))
        seen = len(answers)
        eventually(lambda: len(answers) > seen + 20, "requests after the replacement")
    assert not after & before
    assert {answer.status for answer in answers} == {200}
    assert {answer.json() for answer in answers} <= before | after
    assert {answer.json() for answer in answers[seen:]} <= after
    assert not server.records(level="E")


def test_hup_lets_a_running_request_finish(start):
    server = start("wait.py")
    answer, worker = begin(server, "a")
    server.signal(signal.SIGHUP)
    eventually(lambda: len(server.ready_pids()) == 2, "a successor is ready")
    let_go(server, "a", "b")
    assert answer.result().json() == worker
    eventually(lambda: not is_running(worker), "the old worker has gone")
    assert [server.score("b").json()] == server.wait_for_workers(1)


def test_hup_keeps_the_workers_if_the_new_script_is_broken(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text("import os\ndef init(): pass\ndef run(data): return os.getpid()\n")
    server = start(str(script))
    workers = server.wait_for_workers(1)
    script.write_text("1 / 0\n")
    server.signal(signal.SIGHUP)
    server.wait_for_record("1 worker goes on serving with the code loaded before.", level="E")
    assert server.wait_for_workers(1) == workers
    assert server.score().json() == workers[0]


def test_ttin_adds_a_worker_and_ttou_removes_one(start):
    server = start("wait.py")
    (first,) = server.wait_for_workers(1)
    server.signal(signal.SIGTTIN)
    server.wait_for_workers(2)
    answers = [begin(server, name) for name in "ab"]
    assert len({pid for _, pid in answers}) == 2
    server.signal(signal.SIGTTOU)
    let_go(server, "a", "b")
    assert [answer.result().json() for answer, _ in answers] == [pid for _, pid in answers]
    assert server.wait_for_workers(1) == [first]
    assert not server.records(level="E")


def test_ttou_never_removes_the_last_worker(start):
    server = start("pid.py")
    workers = server.wait_for_workers(1)
    server.signal(signal.SIGTTOU)
    server.signal(signal.SIGTTIN)
    assert workers[0] in server.wait_for_workers(2)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGWINCH])
def test_other_signals_change_nothing(start, number):
    server = start("pid.py")
    workers = server.wait_for_workers(1)
    server.signal(number)
    assert server.score().json() == workers[0]
    assert server.process.poll() is None


# ---- The queue


@pytest.mark.any_worker_class
def test_a_client_that_leaves_the_queue_is_not_scored(start):
    server = start("wait.py")
    answer, _ = begin(server, "a")
    with server.connect() as leaving:
        leaving.send(request("POST", "/score", b"b"))
    # The log line shows that the front has removed it from the queue.
    server.wait_for_record("POST /score 503")
    let_go(server, "a", "b", "c")
    assert answer.result().status == 200
    assert server.score("c").status == 200
    assert not (server.folder / "b.started").exists()


@pytest.mark.any_worker_class
def test_a_client_that_leaves_while_running_does_not_stop_it(start):
    server = start("wait.py")
    with server.connect() as leaving:
        leaving.send(request("POST", "/score", b"a"))
        eventually((server.folder / "a.started").exists, "a runs")
    let_go(server, "a", "b")
    assert server.score("b").json() == int((server.folder / "a.started").read_text())
    assert not server.records(level="E")


@pytest.mark.any_worker_class
def test_a_full_queue_refuses_at_once(start):
    server = start("wait.py", "--max_queue", "2")
    running, _ = begin(server, "a")
    queued = [server.connect().send(request("POST", "/score", b"a")) for _ in range(2)]

    def refused():
        # This request leaves the queue again. It is sent until both others are in the queue.
        with server.connect() as connection:
            connection.send(request("POST", "/score", b"a"))
            return None if connection.is_silent(0.05) else connection.read()

    response = eventually(refused, "the queue is full")
    assert (response.status, response["retry-after"]) == (503, "1")
    assert response.json() == {"message": "The server is busy: 2 requests are waiting already. Try again later."}
    assert response["x-ms-run-function-failed"] == "False"
    let_go(server, "a")
    assert running.result().status == 200
    assert [connection.read().status for connection in queued] == [200, 200]


@pytest.mark.any_worker_class
def test_a_burst_is_answered_exactly_once(start):
    server = start("note.py", "--worker_count", "2")
    server.wait_for_workers(2)
    names = [f"{client}-{number}" for client in range(100) for number in range(10)]
    connections = [server.connect() for _ in range(100)]
    for client, connection in enumerate(connections):
        own = names[client * 10 : client * 10 + 10]
        connection.send(b"".join(request("POST", "/score", name.encode()) for name in own))
    answered = [connection.read().json() for connection in connections for _ in range(10)]
    assert answered == names
    assert sorted((server.folder / "notes").read_text().split()) == sorted(names)


@pytest.mark.serial
def test_idle_workers_are_used_before_queues_form(start):
    server = start("wait.py", "--worker_count", "2")
    let_go(server, "fast")
    for _ in range(50):
        server.score("fast")
    answer, worker = begin(server, "slow")
    assert server.score("fast").json() != worker
    let_go(server, "slow")
    assert answer.result().json() == worker
