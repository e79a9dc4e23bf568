"""Health: the truth about the workers, told without asking them (docs/reliability.md)."""

from __future__ import annotations

import os
import signal

import pytest
from harness import KEPT, eventually, request
from latency import assert_fast

HTML = "text/html; charset=utf-8"
READING = ("GET", "HEAD", "OPTIONS")


def assert_not_ready(response):
    assert response.status == 503
    assert set(response.json()) == {"message"}
    assert response["retry-after"] == "1"
    assert response["x-request-id"]


# ---- A ready server


@pytest.mark.parametrize("target", ["/", "/?query", "//"])
def test_healthy(shared, target):
    response = shared("echo.py").get(target)
    assert (response.status, response["content-type"], response.body) == (200, HTML, b"Healthy")
    assert response["x-ms-server-version"]
    assert response["x-request-id"] == response["x-ms-request-id"] is not None
    assert response["x-ms-run-function-failed"] is None


def test_head_has_the_length_of_the_answer(shared):
    with shared("echo.py").connect() as connection:
        response = connection.exchange("HEAD", "/", headers=KEPT)
        assert (response.status, response["content-length"], response["content-type"]) == (200, "7", HTML)
        assert connection.exchange("GET", "/").body == b"Healthy"


@pytest.mark.parametrize("target", ["/", "/swagger.json"])
def test_options_lists_the_methods(shared, target):
    response = shared("echo.py").request("OPTIONS", target)
    assert (response.status, response.body, response["content-type"]) == (200, b"", HTML)
    assert set(response["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    assert response["x-request-id"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("target", ["/", "/livez", "/readyz", "/swagger.json"])
def test_other_methods_are_refused(shared, method, target):
    response = shared("echo.py").request(method, target, b"body")
    assert response.status == 405
    assert response.json() == {"message": "The method is not allowed for the requested URL."}
    assert (response["x-ms-run-function-failed"], response["allow"], response["x-request-id"]) == ("False", None, None)


@pytest.mark.parametrize("target", ["/livez", "/readyz"])
def test_live_and_ready(shared, target):
    response = shared("echo.py").get(target)
    assert (response.status, response["content-type"]) == (200, HTML)
    assert response.body


# Every reply but those of /score, errors and refusals included: (method, target, status).
CLOSING = [
    *((method, target, 200) for target in ("/", "/livez", "/readyz", "/swagger.json") for method in READING),
    *(("POST", target, 405) for target in ("/", "/livez", "/readyz", "/swagger.json")),
    ("GET", "/nowhere", 404),
    ("POST", "/nowhere", 404),
]


@pytest.mark.any_worker_class
@pytest.mark.parametrize(("method", "target", "status"), CLOSING)
def test_a_client_may_read_to_the_end_of_the_stream(shared, method, target, status):
    """As with 1.5.1: a probe written in shell does not ask for the end of the connection, and waits
    for it."""
    with shared("echo.py").connect() as connection:
        response = connection.exchange(method, target)
        assert (response.status, response["connection"].lower()) == (status, "close")
        connection.assert_closed()


@pytest.mark.any_worker_class
@pytest.mark.parametrize("option", ["keep-alive", "Keep-Alive", "te, Keep-Alive"])
@pytest.mark.parametrize(("method", "target", "status"), CLOSING)
def test_a_client_that_asks_for_it_keeps_its_connection(shared, method, target, status, option):
    with shared("echo.py").connect() as connection:
        for _ in range(2):
            response = connection.exchange(method, target, headers={"Connection": option})
            assert (response.status, response["connection"]) == (status, None)
        assert connection.exchange("POST", "/score", b"x").json() == "x"
        assert connection.exchange("POST", "/score", b"y").json() == "y"


def test_a_client_may_read_to_the_end_of_the_stream_while_the_server_starts(start):
    server = start("init_waits.py", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    for target in ("/", "/readyz"):
        with server.connect() as connection:
            assert_not_ready(connection.exchange("GET", target))
            connection.assert_closed()
    (server.folder / "go").touch()


def test_health_requests_are_not_logged(start):
    server = start("echo.py")
    for target in ("/", "/livez", "/readyz"):
        assert server.get(target).status == 200
    server.get("/score?last")
    server.wait_for_record("GET /score?last")
    assert not [record for record in server.records() if record.message.startswith("GET /") and "?" not in record.text]


# ---- Starting, and without workers


@pytest.mark.any_worker_class
def test_a_starting_server_is_alive_and_not_ready_and_holds_requests(start):
    server = start("init_waits.py", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    assert_not_ready(server.get("/"))
    assert_not_ready(server.get("/readyz"))
    assert server.get("/livez").status == 200
    with server.connect() as connection:
        connection.send(request("POST", "/score", b"early"))
        assert connection.is_silent(0.1)
        (server.folder / "go").touch()
        assert connection.read().json() == "early"
    assert server.get("/").status == 200
    assert server.get("/readyz").status == 200


@pytest.mark.any_worker_class
def test_swagger_waits_for_the_script(start):
    server = start("init_waits.py", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    with server.connect() as connection:
        connection.send(request("GET", "/swagger.json?version=3"))
        assert connection.is_silent(0.1)
        (server.folder / "go").touch()
        assert connection.read().json()["openapi"] == "3.0.3"
    server.wait_for_record("GET /swagger.json?version=3 200")


def test_swagger_waits_no_longer_than_its_client_or_the_queue_timeout(start):
    server = start("init_waits.py", "--queue_timeout", "0.2", ready=False)
    eventually((server.folder / "waiting").exists, "init() runs")
    response = server.get("/swagger.json")
    assert response.status == 503
    assert "--queue_timeout" in response.json()["message"]
    waiting = server.connect().send(request("GET", "/swagger.json?again"))
    waiting.close()
    server.wait_for_record("GET /swagger.json?again 503")
    (server.folder / "go").touch()


def test_a_server_that_lost_its_workers_is_not_ready(start):
    server = start("init_waits.py", ready=False)
    (server.folder / "go").touch()
    server.wait_until_ready()
    (server.folder / "go").unlink()
    os.kill(server.workers()[0], signal.SIGKILL)
    assert_not_ready(eventually(lambda: (r := server.get("/")).status == 503 and r, "not ready"))
    assert server.get("/livez").status == 200
    (server.folder / "go").touch()
    server.wait_until_ready()


# ---- Never waiting


@pytest.mark.serial
def test_health_is_fast_while_all_workers_are_stopped(start):
    server = start("echo.py", "--worker_count", "2", separate_health=True)
    workers = server.wait_for_workers(2)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        waiting = [server.score_later("x") for _ in range(4)]
        eventually(lambda: server.get("/").status == 503, "the front knows it")
        for port in (server.port, server.health_port):
            assert_fast(server, {"/": 503, "/livez": 200, "/readyz": 503}, port)
        assert not any(answer.is_done for answer in waiting)
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
    assert [answer.result().json() for answer in waiting] == ["x"] * 4


@pytest.mark.serial
@pytest.mark.any_worker_class
def test_health_is_fast_while_run_holds_the_interpreter(start):
    server = start("slow.py", SCORING_TIMEOUT_MS="0", WORKER_TIMEOUT="0")
    server.connect().send(request("POST", "/score", b"spin"))
    assert_fast(server, {"/": 200})
    # Ended by a signal, because nothing else ends this call.
    server.signal(signal.SIGINT)


# ---- The separate port


def test_a_separate_health_port_has_all_routes(start):
    server = start("echo.py", separate_health=True)
    for port in (server.port, server.health_port):
        assert server.get("/", port).body == b"Healthy"
        assert server.get("/livez", port).status == server.get("/readyz", port).status == 200
        assert server.get("/score?a=1", port).json() == '{"a": 1}'
    assert f"Liveness Probe: GET   127.0.0.1:{server.health_port}/" in server.stdout()
    assert f"Score:          POST  127.0.0.1:{server.port}/score" in server.stdout()


def test_without_the_switch_there_is_no_health_port(start):
    from harness import Port

    port = Port()
    server = start("echo.py", "--health_port", str(port.number))
    with pytest.raises(ConnectionRefusedError):
        server.get("/", port.number)
    port.release()
