"""``GET /metrics``: where it is, that its text is valid, and that its numbers are those that the
clients have counted, whatever dies (docs/metrics.md)."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import struct
from pathlib import Path

import pytest
from harness import IS_WINDOWS, eventually, request
from metrics_text import Scrape, assert_not_less, has_promtool, promtool
from wire import clients


def scrape(server, port=None):
    response = server.get("/metrics", port)
    assert response.status == 200
    assert response["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scrape(response.text)


def scrape_with(server, probe, what):
    """A scrape for which ``probe`` is true. A client may see its reply before the front has counted
    it."""

    def find():
        found = scrape(server)
        return found if probe(found) else None

    return eventually(find, what)


@pytest.mark.any_worker_class
def test_each_request_is_counted_once_by_method_route_and_status(start):
    server = start("obey.py", "--max_request_size", "1000")
    for _ in range(5):
        assert server.score("answer = 1").status == 200
    assert server.score("1 / 0").status == 500
    assert server.score("answer = object()").status == 500  # a result that cannot be rendered
    assert server.score("x" * 1001).status == 413
    assert server.request("PUT", "/score").status == 405
    assert server.request("BREW", "/coffee").status == 404
    assert server.get("/swagger.json").status == 200
    seen = scrape_with(server, lambda seen: seen.requests(route="/swagger.json") == 1, "all requests are counted")
    assert seen.requests(method="POST", route="/score", status="200") == 5
    assert seen.requests(method="POST", route="/score", status="500") == 2
    assert seen.requests(method="POST", route="/score", status="413") == 1
    assert seen.requests(method="PUT", route="", status="405") == 1
    assert seen.requests(method="_OTHER", route="", status="404") == 1
    assert seen.requests(route="/score") == 8
    assert seen.sum("azmlinfsrv_run_duration_seconds_count", outcome="ok") == 5
    assert seen.sum("azmlinfsrv_run_duration_seconds_count", outcome="error") == 2
    assert seen["azmlinfsrv_queue_duration_seconds_count"] == 7
    assert seen.sum("azmlinfsrv_requests_rejected_total", reason="too_large") == 1
    # The health checks before the server was ready were refused.
    by_health = seen.sum("azmlinfsrv_requests_rejected_total", reason="no_worker")
    assert seen.sum("azmlinfsrv_requests_rejected_total") == 1 + by_health
    assert seen["azmlinfsrv_queue_depth"] == 0
    assert seen["azmlinfsrv_queue_limit"] == 2048
    # The scrape itself.
    assert seen.sum("http_server_active_requests") == 1
    later = scrape_with(server, lambda later: later.requests(route="/metrics") >= 2, "scrapes are counted too")
    assert_not_less(seen, later)


@pytest.mark.any_worker_class
def test_what_is_so_at_this_moment_is_shown(start, worker_class):
    server = start("gate.py", "--worker_count", "2", "--max_queue", "7")

    # The front learns that a worker is ready before the supervisor does, which counts those that start.
    def both_are_ready(seen):
        return seen.sum("azmlinfsrv_workers", state="ready") == seen.sum("azmlinfsrv_workers") == 2

    scrape_with(server, both_are_ready, "both workers are connected")
    held = [server.score_later(f"r{number}") for number in range(5)]
    seen = scrape_with(server, lambda seen: seen["azmlinfsrv_queue_depth"] == 3, "three requests wait")
    assert seen["azmlinfsrv_runs_in_progress"] == 2
    assert seen["azmlinfsrv_queue_limit"] == 7
    assert seen.sum("azmlinfsrv_workers", state="busy") == seen.sum("azmlinfsrv_workers") == 2
    assert seen.sum("http_server_active_requests", http_request_method="POST") == 5
    (server.folder / "go").touch()
    for one in held:
        assert one.result().status == 200
    seen = scrape_with(server, lambda seen: seen.requests(route="/score", status="200") == 5, "all are counted")
    assert both_are_ready(seen)
    assert seen["azmlinfsrv_runs_in_progress"] == seen["azmlinfsrv_queue_depth"] == 0
    for slot in "01":
        assert 0 < seen.sum("azmlinfsrv_worker_init_duration_seconds", worker=slot) < 60
        if worker_class == "process":
            assert seen.sum("azmlinfsrv_worker_resident_memory_bytes", worker=slot) > 1 << 20
    # Windows has no /proc.
    if not IS_WINDOWS:
        assert seen["process_resident_memory_bytes"] > 1 << 20
        assert seen["process_open_fds"] > 10
        assert seen["process_cpu_seconds_total"] > 0
        assert seen["process_start_time_seconds"] > 1.7e9
    assert seen.sum("azmlinfsrv_build_info") == 1


@pytest.mark.any_worker_class
def test_clients_that_leave_are_counted_by_what_their_request_did(start):
    server = start("gate.py")
    running = server.connect().send(request("POST", "/score", b"r0"))
    eventually(lambda: scrape(server)["azmlinfsrv_runs_in_progress"] == 1, "the first request runs")
    waiting = server.connect().send(request("POST", "/score", b"r1"))
    eventually(lambda: scrape(server)["azmlinfsrv_queue_depth"] == 1, "the second one waits")
    waiting.close()
    name = "azmlinfsrv_requests_abandoned_total"
    scrape_with(server, lambda seen: seen.sum(name, state="queued") == 1, "a waiting request was abandoned")
    # A reset, because a client that only closes may still want its reply.
    running.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    running.close()
    eventually(lambda: scrape(server).sum("http_server_active_requests") == 2, "the request is still active")
    (server.folder / "go").touch()
    seen = scrape_with(server, lambda seen: seen.sum(name, state="running") == 1, "a running request was abandoned")
    assert seen.sum(name) == 2


def test_restarts_are_counted_by_reason(start):
    server = start("obey.py", "--worker_count", "2", "--max_requests", "3", WORKER_TIMEOUT="3")
    name = "azmlinfsrv_worker_restarts_total"

    def count(reason, number, what):
        scrape_with(server, lambda seen: seen.sum(name, reason=reason) == number, what)

    first = server.wait_for_workers(2)
    assert server.score("os._exit(7)").status == 500
    count("crash", 1, "a worker has exited")
    workers = server.wait_for_workers(2, instead_of=set(first) - set(server.workers()))
    os.kill(workers[0], signal.SIGKILL)
    count("signal", 1, "a worker was killed")
    server.wait_for_workers(2, instead_of=[workers[0]])
    assert server.score("time.sleep(60)").status == 500
    count("timeout", 1, "a worker took too long")
    server.wait_for_workers(2)
    before = scrape(server)
    assert before["azmlinfsrv_run_timeouts_total"] == 1
    assert before.sum(name) == 3
    server.signal(signal.SIGHUP)
    count("reload", 2, "both workers were replaced")
    for _ in range(8):
        assert server.score("answer = 1").status == 200
    after = scrape_with(server, lambda seen: seen.sum(name, reason="recycle") >= 1, "a worker was recycled")
    assert_not_less(before, after)
    assert after.sum(name, reason="oom") == 0


def test_numbers_agree_with_the_clients_while_everything_dies(start):
    """Each client counts its replies and its broken connections. At the end the server must have
    counted each reply once, and as lost or abandoned no more than what broke."""
    server = start("obey.py", "--worker_count", "2")
    server.wait_for_workers(2)
    ok, failed, broken = [], [], []

    def send(stop):
        while not stop.is_set():
            try:
                status = server.score("answer = 1").status
            except (OSError, http.client.HTTPException) as error:
                broken.append(error)
            else:
                (ok if status == 200 else failed).append(status)

    scrapes = [scrape(server)]
    with clients(send, 3):
        for deed in ("front", "worker", "front", "HUP", "worker", "front"):
            seen = len(ok)
            server.suffer(deed)
            eventually(lambda seen=seen: len(ok) > seen + 20, f"requests are answered after {deed}")
            scrapes.append(scrape(server))

    def settled(last):
        return last.sum("http_server_active_requests") == 1

    last = scrape_with(server, settled, "nothing is active but the scrape")
    for before, after in zip(scrapes, [*scrapes[1:], last]):
        assert_not_less(before, after)
    # The front may have died between a reply and its count, so a reply can be counted as lost.
    lost = last["azmlinfsrv_requests_lost_total"]
    counted = last.requests(route="/score", status="200")
    assert counted <= len(ok) <= counted + lost
    counted_failed = last.requests(route="/score", status="500")
    assert counted_failed <= len(failed) <= counted_failed + lost
    assert lost <= len(broken) + (len(ok) - counted) + (len(failed) - counted_failed) + len(scrapes)
    assert last.sum("azmlinfsrv_worker_restarts_total", reason="signal") == 2


def test_the_text_satisfies_promtool(start):
    if not has_promtool():
        pytest.skip("promtool is not installed")
    server = start("obey.py")
    server.score("answer = 1")
    assert promtool("check", "metrics", text=server.get("/metrics").text) == ""


def test_metrics_are_on_the_health_port_alone_by_default(start):
    server = start("echo.py", separate_health=True)
    assert scrape(server, server.health_port)
    assert server.get("/metrics").status == 404
    everywhere = start("echo.py", "--metrics", "on", separate_health=True)
    for port in (everywhere.port, everywhere.health_port):
        assert scrape(everywhere, port)


def test_metrics_can_be_off(start):
    server = start("echo.py", "--metrics", "off")
    assert server.get("/metrics").status == 404
    assert server.score("x").json() == "x"


def test_the_route_allows_what_other_reports_allow(start):
    server = start("echo.py")
    head = server.request("HEAD", "/metrics")
    assert (head.status, head.body) == (200, b"")
    options = server.request("OPTIONS", "/metrics")
    assert (options.status, options["allow"]) == (200, "GET, HEAD, OPTIONS")
    assert server.request("POST", "/metrics", b"x").status == 405
    assert not [record for record in server.records() if "/metrics" in record.message and " 200 " in record.message]


@pytest.mark.any_worker_class
def test_metrics_of_the_script_are_summed_over_all_workers(start, worker_class):
    server = start("own_metrics.py", "--worker_count", "2")
    server.wait_for_workers(2)
    for _ in range(20):
        assert server.score("small").status == 200
        assert server.score("large model").status == 200
    seen = scrape(server)
    assert seen.types["predictions_total"] == "counter"
    assert seen.sum("predictions_total", model="small") == 20
    assert seen.sum("predictions_total", model="large") == 20
    assert [seen.sum("input_length_bucket", le=bound) for bound in ("4", "8", "+Inf")] == [0, 20, 40]
    assert seen["input_length_sum"] == 20 * len("small") + 20 * len("large model")
    processes = 2 if worker_class == "process" else 1
    assert seen["cache_entries"] == 10 * processes + 40
    if has_promtool():
        assert promtool("check", "metrics", text=seen.text) == ""


def test_metrics_of_the_script_stay_when_workers_end(start):
    server = start("own_metrics.py", "--worker_count", "2")
    workers = server.wait_for_workers(2)
    for _ in range(4):
        assert server.score("good").status == 200
    assert server.score("exit now").status == 500
    left = [pid for pid in workers if pid in server.workers()]
    workers = server.wait_for_workers(2, instead_of=[pid for pid in workers if pid not in left])
    server.kill_front()
    assert server.score("good").status == 200
    seen = scrape(server)
    assert seen.sum("predictions_total", model="good") == 5
    assert seen.sum("predictions_total", model="exit") == 1
    server.signal(signal.SIGHUP)
    server.wait_for_workers(2, instead_of=workers)
    # The gauges of the workers that have ended do not count any more.
    seen = scrape_with(server, lambda seen: seen["cache_entries"] == 20, "only the new workers' gauges count")
    assert seen.sum("predictions_total", model="good") == 5


def test_workers_that_are_forked_from_a_template_have_gauges_of_their_own(start):
    server = start("own_metrics.py", "--worker_count", "2", WORKER_PRELOAD="true")
    server.wait_for_workers(2)
    assert server.score("one").status == 200
    seen = scrape(server)
    assert seen["cache_entries"] == 21
    assert 0 < seen.sum("azmlinfsrv_worker_init_duration_seconds", worker="0") < 60


def test_a_script_with_too_many_series_is_told_and_served(start):
    server = start("own_metrics.py")
    for number in range(510):
        assert server.score(f"model{number}").status == 200
    seen = scrape(server)
    assert len([key for key in seen.samples if key[0] == "predictions_total"]) < 500
    records = [record for record in server.records() if "does not show all of metric predictions" in record.message]
    assert len(records) == 1


OBSERVABILITY = Path(__file__).parents[2] / "examples" / "observability"
METRIC = re.compile(r"\b(?:azmlinfsrv|http_server|process)_\w+")


def test_the_dashboard_and_the_alerts_use_metrics_that_there_are(start):
    # Nobody listens there.
    server = start("own_metrics.py", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert server.score("x").status == 200
    there = {name for name, _ in scrape_with(server, lambda seen: seen.requests(route="/score"), "it counts").samples}
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = (OBSERVABILITY / "alerts.yml").read_text()
    for text in (*queries, rules):
        named = set(METRIC.findall(text))
        assert named
        assert named <= there, named - there
        for routes in re.findall(r'http_route=~?"([^"]*)"', text):
            for route in ("/score", "/v2/models/{name}/infer"):
                assert re.fullmatch(routes, route), "the script is called by two routes"


def test_promtool_accepts_the_rules_and_the_queries(tmp_path):
    if not has_promtool():
        pytest.skip("promtool is not installed")
    for command, file in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        assert promtool("check", command, str(OBSERVABILITY / file)) == ""
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    # promtool reads queries in rules only. Grafana puts a time in place of the variable.
    records = [{"record": f"query:{n}", "expr": q.replace("$__rate_interval", "1m")} for n, q in enumerate(queries)]
    rules = tmp_path / "queries.yml"
    rules.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": records}]}))
    assert promtool("check", "rules", str(rules)) == ""
