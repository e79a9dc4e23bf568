"""Runs one server with a receiver of telemetry, sends it requests, and returns the items that the receiver got.

Owns the setups: scripts, settings and requests. Both servers get the same, one request after the other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from receiver import Receiver
from surroundings import Port

KEY = "00000000-0000-4000-8000-00000000000b"
SCRIPTS = Path(__file__).parent / "scripts"
SECONDS = 60.0


class Sent(NamedTuple):
    """One request; ``id`` is its x-request-id, and so the name of its item."""

    id: str
    method: str = "POST"
    target: str = "/score"
    body: str | None = ""
    headers: tuple[tuple[str, str], ...] = ()


class Setup(NamedTuple):
    """A script with settings, and what is sent to it."""

    name: str
    script: str
    requests: tuple[Sent, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    starts: bool = True


TEXT = (
    Sent("plain", body="hello"),
    Sent("empty", body=""),
    Sent("query", target="/score?a=1&b=%20x&c=%C3%A9", body="x"),
    Sent("get", "GET", "/score?a=1", None),
    Sent("get-secret", "GET", "/score?code=x&a=1", None),
    Sent("https", headers=(("X-Forwarded-Proto", "https"),)),
    Sent("get-no-query", "GET", "/score", None),
    Sent("options", "OPTIONS", "/score", None),
    Sent("head", "HEAD", "/score", None),
    Sent("unicode", body="größer"),
    Sent("client-id", headers=(("x-ms-client-request-id", "the-client"),)),
    Sent("old-id", headers=(("x-ms-request-id", "old"),)),
    Sent("host", headers=(("Host", "example.com:8443"),)),
    Sent("json", body='{"a": [1, 2]}', headers=(("Content-Type", "application/json"),)),
    Sent("long-reply", body="long-reply"),
    Sent("none", body="none"),
    Sent("number", body="number"),
    Sent("dict", body="dict"),
    Sent("print", body="print"),
    Sent("print-empty", body="print-empty"),
    Sent("print-many", body="print-many"),
    Sent("print-long", body="print-long"),
    Sent("print-lines", body="print-lines"),
    Sent("print-thread", body="print-thread"),
    *(Sent(f"level-{level}", body=f"level {level}") for level in (10, 20, 25, 30, 40, 50)),
    Sent("child", body="child"),
    Sent("elsewhere", body="elsewhere"),
    Sent("extra", body="extra"),
    Sent("extra-kinds", body="extra-kinds"),
    Sent("extra-long", body="extra-long"),
    Sent("log-dict", body="log-dict"),
    Sent("log-list", body="log-list"),
    Sent("log-number", body="log-number"),
    Sent("log-arguments", body="log-arguments"),
    Sent("event", body="event"),
    Sent("caught", body="caught"),
    Sent("caught-chain", body="caught-chain"),
    Sent("raise", body="raise"),
    Sent("raise-chain", body="raise-chain"),
    Sent("raise-no-text", body="raise-no-text"),
    Sent("teapot", body="teapot"),
    Sent("status-500", body="status-500"),
    Sent("status-404", body="status-404"),
    Sent("binary", body="binary"),
    Sent("stream", body="stream"),
    Sent("not-json", body="not-json"),
    Sent("swagger", "GET", "/swagger.json", None),
    Sent("swagger-2", "GET", "/swagger.json?version=2", None),
    Sent("swagger-bad", "GET", "/swagger.json?version=9", None),
    Sent("swagger-head", "HEAD", "/swagger.json", None),
    Sent("swagger-options", "OPTIONS", "/swagger.json", None),
    Sent("health", "GET", "/", None),
    Sent("not-found", "GET", "/none", None),
    Sent("put", "PUT", "/score", "x"),
    Sent("swagger-post", "POST", "/swagger.json", "x"),
    Sent("trace", headers=(("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)),
    Sent("x" * 101),
)
SETUPS = (
    Setup("text", "text.py", TEXT, (("SERVICE_NAME", "the service"), ("WORKSPACE_NAME", "w"), ("HOSTNAME", "pod"))),
    Setup(
        "schema",
        "schema.py",
        (
            Sent("ok", body='{"data": {"a": 1}}', headers=(("Content-Type", "application/json"),)),
            Sent("bad", body="{", headers=(("Content-Type", "application/json"),)),
            Sent("media", body="x", headers=(("Content-Type", "text/plain"),)),
            Sent("large", body='{"data": "' + "a" * 9000 + '"}', headers=(("Content-Type", "application/json"),)),
        ),
        (("AML_MDC_STORAGE_ENABLED", "true"),),
    ),
    Setup(
        "model-data",
        "text.py",
        (Sent("plain", body="hello"), Sent("get", "GET", "/score?a=1", None), Sent("teapot", body="teapot")),
        (("AML_MDC_STORAGE_ENABLED", "true"), ("APP_INSIGHTS_LOG_RESPONSE_ENABLED", "false")),
    ),
    Setup(
        "raw",
        "raw.py",
        (Sent("post", body="x"), Sent("get", "GET", "/score?a=1", None), Sent("options", "OPTIONS", "/score", None)),
    ),
    Setup("import-fails", "import_fails.py", starts=False),
    Setup("timeout", "sleep.py", (Sent("slow", body="x"),), (("SCORING_TIMEOUT_MS", "200"),)),
)


def items(setup: Setup, python: str) -> list[dict[str, Any]]:
    """What one server sends. Servers may run at the same time."""
    port = Port()
    with Receiver() as receiver, tempfile.TemporaryDirectory(prefix="azt-") as folder:
        process = _start(setup, python, receiver, folder, port.number)
        try:
            if setup.starts:
                _wait_until_ready(process, port.number)
                for sent in setup.requests:
                    _send(port.number, sent)
                process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            assert process.stdout is not None
            process.stdout.close()
            port.release()
        return receiver.items


def _start(setup: Setup, python: str, receiver: Receiver, folder: str, port: int) -> subprocess.Popen[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": folder,
        "TMPDIR": folder,
        "LANG": "en_US.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "APPLICATIONINSIGHTS_CONNECTION_STRING": f"InstrumentationKey={KEY};IngestionEndpoint={receiver.url}",
        "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "AZUREML_MODEL_DIR": folder,
        **dict(setup.environment),
    }
    command = [python, "-m", "azureml_inference_server_http", "--port", str(port)]
    command += ["--entry_script", str(SCRIPTS / setup.script), "--appinsights_instrumentation_key", KEY]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def _wait_until_ready(process: subprocess.Popen[str], port: int) -> None:
    """Waits until a worker is ready. Reads the output in a thread from then on, so that it never fills up."""
    import threading

    assert process.stdout is not None
    for line in process.stdout:
        if "ready for serving traffic" in line:
            break
    else:
        raise AssertionError("the server has not started")
    threading.Thread(target=lambda: [None for _ in process.stdout or ()], daemon=True).start()
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return _send(port, Sent("ready", "GET", "/", None))
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise


def _send(port: int, sent: Sent) -> None:
    body = None if sent.body is None else sent.body.encode()
    headers = {"x-request-id": sent.id, "Content-Type": "text/plain", **dict(sent.headers)}
    if body is None:
        del headers["Content-Type"]
    request = urllib.request.Request(f"http://127.0.0.1:{port}{sent.target}", body, headers, method=sent.method)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as response:
            response.read()
    except urllib.error.HTTPError as error:
        error.read()
        error.close()
