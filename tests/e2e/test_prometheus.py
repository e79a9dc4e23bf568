"""A real Prometheus scrapes the server while workers and fronts die, and has the numbers that the clients have counted.

``make test-prometheus`` runs it; it needs the programs ``prometheus`` and ``promtool``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from harness import eventually
from metrics_text import Scrape, promtool
from surroundings import free_port
from wire import clients

MISSING = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

OBSERVABILITY = Path(__file__).parents[2] / "examples" / "observability"
SCORED = 'http_server_request_duration_seconds_count{http_route="/score",http_response_status_code="200"}'
DEEDS = ("front", "worker", "HUP", "front", "worker", "front")


class Prometheus:
    """Prometheus as it scrapes one server every second. Use it in a ``with`` statement."""

    def __init__(self, folder, target):
        self._address = f"127.0.0.1:{free_port()}"
        self._folder = folder
        scrape = {"job_name": "azmlinfsrv", "static_configs": [{"targets": [target]}]}
        (folder / "prometheus.yml").write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(OBSERVABILITY / "alerts.yml")],
                    "scrape_configs": [scrape],
                }
            )
        )

    def __enter__(self):
        command = [
            "prometheus",
            f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address={self._address}",
        ]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(30)

    def api(self, path, **parameters):
        with urllib.request.urlopen(
            f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=30
        ) as response:
            answer = json.load(response)
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, expression):
        return self.api("query", query=expression)["result"]

    def number(self, expression):
        """The one number that a query gives; 0 if it gives none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def is_up(self):
        with contextlib.suppress(OSError, urllib.error.URLError):
            return self.number('up{job="azmlinfsrv"}') == 1
        return False


def test_prometheus_has_the_numbers_of_the_clients_while_everything_dies(start, tmp_path):
    server = start("own_metrics.py", "--worker_count", "2", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    server.wait_for_workers(2)
    ok, broken = [], []

    def send(stop):
        while not stop.is_set():
            try:
                (ok if server.score("small").status == 200 else broken).append(1)
            except (OSError, http.client.HTTPException):
                broken.append(1)

    with Prometheus(tmp_path, f"127.0.0.1:{server.port}") as prometheus:
        eventually(prometheus.is_up, "Prometheus scrapes the server")
        with clients(send, 3):
            for deed in DEEDS:
                server.suffer(deed)
                seen, scrapes = len(ok), prometheus.number("count_over_time(up[10m])")
                eventually(lambda seen=seen: len(ok) > seen + 20, f"requests are answered after {deed}")
                eventually(
                    lambda scrapes=scrapes: prometheus.number("count_over_time(up[10m])") > scrapes,
                    "it has scraped again",
                )
        text = eventually(
            lambda: (
                (found := server.get("/metrics").text)
                and Scrape(found).sum("http_server_active_requests") == 1
                and found
            ),
            "nothing is active but the scrape",
        )
        page = Scrape(text)
        counted = page.requests(route="/score", status="200")
        eventually(lambda: prometheus.number(f"sum({SCORED})") == counted, "Prometheus has the last numbers")
        lost = prometheus.number("azmlinfsrv_requests_lost_total")
        assert counted <= len(ok) <= counted + lost
        assert lost == page["azmlinfsrv_requests_lost_total"]
        assert prometheus.number("sum(azmlinfsrv_worker_restarts_total{reason='signal'})") == DEEDS.count("worker")
        # Counters never go backwards, although three fronts have died.
        for name in (
            "http_server_request_duration_seconds_count",
            "azmlinfsrv_run_duration_seconds_sum",
            "predictions_total",
        ):
            assert prometheus.number(f"sum(resets({name}[10m]))") == 0, name
        predictions = prometheus.number("sum(predictions_total)")
        assert counted <= predictions <= len(ok) + len(broken)
        assert promtool("check", "metrics", text=text) == ""
        assert_rules_and_dashboard_work(prometheus)


def assert_rules_and_dashboard_work(prometheus):
    assert promtool("check", "rules", str(OBSERVABILITY / "alerts.yml")) == ""

    def health():
        rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
        return {rule["health"] for rule in rules}

    eventually(lambda: health() == {"ok"}, "all rules are evaluated without an error")
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            assert prometheus.query(query), query
