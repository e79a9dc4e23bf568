"""A receiver of OTLP that others have written accepts what the server sends. It is an optional package: ``pip install
oteltap``."""

from __future__ import annotations

import asyncio
import socket

import pytest

oteltap = pytest.importorskip("oteltap", reason="oteltap, an independent receiver of OTLP, is not installed")

PATIENCE = 60


def free_port():
    """A port that is free now. The receiver cannot say which one it has taken."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_spans_log_records_and_metrics_are_accepted(start):
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
