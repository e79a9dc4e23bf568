"""Receivers of OTLP that others have written accept what the server sends. They are optional packages, each with
programs of its own: ``pip install oteltap rotel``, or ``make test-otlp``. rotel's program can be somewhere else
(``ROTEL_AGENT``)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest
from harness import eventually
from surroundings import free_port

PATIENCE = 60


def rotel_agent():
    """The program of rotel, if there is one."""
    given = os.environ.get("ROTEL_AGENT")
    package = importlib.util.find_spec("rotel")
    if given or package is None or package.origin is None:
        return given
    return str(Path(package.origin).with_name("rotel-agent"))


def test_oteltap_accepts_spans_log_records_and_metrics(start):
    oteltap = pytest.importorskip("oteltap", reason="oteltap, an independent receiver of OTLP, is not installed")
    port = free_port()
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        # oteltap 1.0.0 answers 400 to a compressed body.
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_BSP_SCHEDULE_DELAY": "20",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }

    def call():
        server = start("telemetry.py", **environment)
        assert server.request("POST", "/score", "records").status == 200
        return server

    async def receive():
        settings = oteltap.OtelTapHttpProtobufReceiverSettings(http_port=port)
        async with oteltap.OtelTapHttpProtobufReceiver(settings) as receiver:
            expected = asyncio.gather(
                receiver.await_trace(lambda span: span.name == "POST /score", PATIENCE),
                receiver.await_log(lambda record: record.body.string_value == "a child", PATIENCE),
                receiver.await_metric(lambda metric: metric.name == "http.server.request.duration", PATIENCE),
            )
            server = await asyncio.to_thread(call)
            found = await expected
            return server, found

    server, (span, record, metric) = asyncio.run(receive())
    assert span.kind == 2
    assert len(record.trace_id) == 16
    assert metric.unit == "s"
    assert not [record for record in server.records() if "azmlinfsrv.telemetry" in record.text]


@contextlib.contextmanager
def rotel(agent, folder, port):
    """rotel, as it prints what it gets. Gives the file with what it has printed."""
    printed = folder / "rotel.log"
    command = [
        *(agent, "start", "--exporter", "blackhole", "--debug-log-verbosity", "detailed"),
        *("--debug-log", "traces", "--debug-log", "metrics", "--debug-log", "logs"),
        *("--otlp-http-endpoint", f"127.0.0.1:{port}"),
        *("--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"),
    ]
    with printed.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder)
    try:
        eventually(lambda: accepts_connections(port), "rotel listens")
        yield printed
    finally:
        process.terminate()
        process.wait(PATIENCE)


def accepts_connections(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def all_are_sent(page):
    signals = ("traces", "logs", "metrics")
    return all(re.search(rf'items_sent_total{{exporter="otlp_{signal}"}} [1-9]', page) for signal in signals)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_rotel_accepts_spans_log_records_and_metrics(start, tmp_path, compression):
    agent = rotel_agent()
    if agent is None:
        pytest.skip("rotel, an independent receiver of OTLP, is not installed")
    port = free_port()
    with rotel(agent, tmp_path, port) as printed:
        server = start(
            "telemetry.py",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_COMPRESSION=compression,
            OTEL_BSP_SCHEDULE_DELAY="20",
            OTEL_METRIC_EXPORT_INTERVAL="200",
        )
        assert server.request("POST", "/score", "records").status == 200
        for text in ("POST /score", "http.route", "a child", "http.server.request.duration"):
            eventually(lambda text=text: text in printed.read_text(), f"rotel has printed {text}")
        # rotel prints before it answers, and the server counts when it has the answer.
        page = eventually(lambda: page if all_are_sent(page := server.get("/metrics").text) else None, "all are sent")
    assert not re.search(r"azmlinfsrv_telemetry_requests_failed_total{.*} [1-9]", page), page
    assert not [record for record in server.records() if "azmlinfsrv.telemetry" in record.text]
