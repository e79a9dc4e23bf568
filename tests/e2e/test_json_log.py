"""``--log_format json``: every line of standard output is an object. ``--access_log`` and ``--trusted_proxies``."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess

import pytest
from harness import eventually

from azureml_inference_server_http.testing import serve

JSON = ("--log_format", "json")


def objects(server):
    """The objects of standard output. Fails if a line is none. The last line may be unfinished."""
    text = server.stdout()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def found(server, what="a record", count=1, **fields):
    """The first objects with these fields, once there are as many."""

    def find():
        matching = [
            one for one in objects(server) if all(str(value) in str(one.get(name)) for name, value in fields.items())
        ]
        return matching if len(matching) >= count else None

    return eventually(find, f"{what} with {fields}")


def joined(parts):
    """The messages of the records that were cut into parts, by the order of the parts."""
    assert [part["part"] for part in parts] == list(range(1, parts[0]["parts"] + 1))
    return "".join(part["message"] for part in parts)


@pytest.mark.any_worker_class
def test_every_line_is_an_object_under_a_flood(start):
    server = start("log_flood.py", *JSON, "--worker_count", "2")
    replies = [server.score_later(f"flood {number}", x_request_id=f"id-{number}") for number in range(40)]
    assert all(reply.result().status == 200 for reply in replies)
    assert server.score("raise", x_request_id="raised").status == 500
    found(server, message="POST /score", request_id="raised")
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    records = objects(server)
    for number in range(40):
        ids = [one for one in records if one.get("request_id") == f"id-{number}"]
        printed = joined([one for one in ids if one["logger"] == "azmlinfsrv.print"])
        assert printed.startswith(f"flood {number} begin\n")
        assert printed.endswith(f"flood {number} end")
        assert printed.count('größer "quoted" \\ \x1b[31m\n') == 300
        errors = [one["message"] for one in ids if one["logger"] == "azmlinfsrv.stderr"]
        assert errors[0] == f"flood {number} to stderr"
        assert errors[-1] == f"KeyError: 'flood {number}'"
        [warned, caught] = [one for one in ids if one["logger"] == "mine"]
        assert (warned["message"], warned["extra"]) == (f"flood {number}\nwarned", {"rows": 17})
        assert caught["exception"] == "KeyError"
        [line] = [one for one in ids if "status" in one]
        assert line["status"] == 200
    if shutil.which("jq"):
        counted = subprocess.run(
            ["jq", "-s", "length"], input=server.stdout(), capture_output=True, text=True, check=True
        )
        assert int(counted.stdout) == len(records)


@pytest.mark.any_worker_class
def test_the_start_the_script_and_its_failures_are_in_it(start):
    server = start("log_flood.py", *JSON, "--max_queue", "7", SCORING_TIMEOUT_MS="2000")
    banner = found(server, logger="azmlinfsrv.banner")[0]
    assert "Server Settings\n---------------" in banner["message"]
    for fields in (
        {"message": "Initializing logger", "logger": "azmlinfsrv"},
        {"message": "Booting worker with pid", "logger": "gunicorn.error"},
        {"message": "at the top", "logger": "azmlinfsrv.print"},
        {"message": "in init\nsecond line", "logger": "azmlinfsrv.print"},
        {"message": "written to stdout", "logger": "azmlinfsrv.stdout"},
        {"message": "UserWarning: a warning", "logger": "py.warnings"},
        {"message": "Uncaught exception in thread failing\nTraceback", "exception": "ZeroDivisionError"},
    ):
        found(server, **fields)
    # Descriptors that Python does not own are text on standard error.
    assert "raw bytes to 1\n" in server.stderr()
    assert "raw bytes to 2\n" in server.stderr()
    assert server.score("raise").status == 500
    raised = found(server, message="ValueError: raise\nsecond line")[0]
    assert raised["message"].startswith("Encountered Exception")
    assert raised["request_id"]
    line = found(server, message="POST /score", request_id=raised["request_id"])[0]
    assert 0 <= line["run_ms"] <= line["total_ms"]
    assert server.score("sleep", x_request_id="slow").status == 500
    assert "allocated time: 2000ms" in found(server, level="ERROR", request_id="slow")[0]["message"]
    line = found(server, message="POST /score", request_id="slow")[0]
    assert line["status"] == 500
    assert line["run_ms"] >= 1900


def test_a_crash_is_in_it(start):
    server = start("log_flood.py", *JSON)
    assert server.score("crash", x_request_id="crashed").status == 500
    line = found(server, message="POST /score", request_id="crashed")[0]
    assert line["status"] == 500
    found(server, message="SIGSEGV")
    # A crash leaves its stack as text.
    assert "Fatal Python error: Segmentation fault" in server.stderr()


@pytest.mark.any_worker_class
@pytest.mark.parametrize("script", ["import_fails.py", "init_fails.py", "no_run.py"])
def test_a_start_that_fails_is_in_it(start, script):
    server = start(script, *JSON, ready=False)
    assert server.wait_for_exit() == 3
    assert any(one["level"] == "ERROR" for one in objects(server))


@pytest.mark.any_worker_class
def test_the_line_of_a_request_has_its_fields(start):
    server = start("echo.py", *JSON)
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {
        "X-Request-Id": "r",
        "X-Ms-Client-Request-Id": "c\u00e9",
        "Traceparent": f"00-{trace}-b7ad6b7169203331-01",
        "User-Agent": 'a "quoted" \\ agent' + "x" * 5000,
    }
    reply = server.request("POST", "/score?a=1", "12345", headers)
    line = found(server, message="POST /score?a=1")[0]
    assert line["message"].startswith("POST /score?a=1 200 ")
    expected = {
        "level": "INFO",
        "logger": "azmlinfsrv",
        "request_id": "r",
        "trace_id": trace,
        "method": "POST",
        "route": "/score",
        "status": 200,
        "bytes_in": 5,
        "bytes_out": len(reply.body),
        "client": "127.0.0.1",
        "worker": 0,
    }
    assert {name: line[name] for name in expected} == expected
    assert line["user_agent"].startswith('a "quoted" \\ agent')
    assert line["user_agent"].endswith("bytes left out ...]")
    assert 0 <= line["run_ms"] <= line["total_ms"]
    assert 0 <= line["queued_ms"] <= line["total_ms"]
    assert server.get("/nowhere").status == 404
    line = found(server, message="GET /nowhere")[0]
    assert line["status"] == 404
    assert not {"route", "worker", "run_ms", "queued_ms"} & set(line)
    server.get("/")
    assert server.score("last", x_request_id="last").status == 200
    found(server, request_id="last")
    assert not [one for one in objects(server) if one.get("route") in ("/", "/livez", "/readyz")]


def test_a_logging_json_decides_alone(start):
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"mine": {"format": "MINE %(request_id)s %(message)s"}},
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "mine", "stream": "ext://sys.stdout"}},
        "loggers": {"azmlinfsrv": {"level": "INFO", "handlers": ["out"], "propagate": False}},
    }
    server = start("echo.py", *JSON, files={"logging.json": json.dumps(config)})
    assert server.score("x", x_request_id="r").status == 200
    eventually(lambda: "MINE r POST /score 200" in server.stdout(), "the line of the request, with its id")
    assert "--log_format has no effect, because logging.json decides" in server.stdout()


# ---- Which requests have a line


@pytest.mark.any_worker_class
@pytest.mark.parametrize(
    ("which", "targets"),
    [("off", []), ("errors", ["/score?bad", "/nowhere"]), ("all", ["/score?good", "/score?bad", "/nowhere"])],
)
@pytest.mark.parametrize("script", ["fail.py", "own_logging.py"])
def test_access_log(start, which, targets, script):
    server = start(script, "--access_log", which, OWN_LOGGING="filter")
    server.request("POST", "/score?good", "fine")
    if script == "fail.py":
        assert server.request("POST", "/score?bad", "ValueError()").status == 500
    else:
        targets = [target for target in targets if target != "/score?bad"]
    server.get("/nowhere")
    server.get("/")
    # Everything that was logged before is written when the server has ended.
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    lines = [line for line in server.stdout().splitlines() if "ms " in line and (" GET /" in line or " POST /" in line)]
    assert [line.split()[7] for line in lines] == targets


# ---- Who was it?


def who(server, **headers):
    """What the script and the log say about the client."""
    marked = {**{name.replace("_", "-"): value for name, value in headers.items()}, "X-Request-Id": os.urandom(8).hex()}
    reply = server.request("GET", "/score", "", marked).json()
    return [*reply[:2], found(server, request_id=marked["X-Request-Id"])[0]["client"]]


@pytest.mark.any_worker_class
def test_a_trusted_proxy_says_who_the_client_is(start):
    server = start("who.py", *JSON, "--trusted_proxies", "10.0.0.0/8, 127.0.0.1")
    assert who(server) == ["127.0.0.1", "http", "127.0.0.1"]
    assert who(server, X_Forwarded_For="6.6.6.6, 192.0.2.7, 10.0.0.3") == ["192.0.2.7", "http", "192.0.2.7"]
    assert who(server, X_Forwarded_For="192.0.2.7", X_Forwarded_Proto="https") == ["192.0.2.7", "https", "192.0.2.7"]
    forwarded = 'for="[2001:db8::1]:4711";proto=https'
    assert who(server, Forwarded=forwarded) == ["2001:db8::1", "https", "2001:db8::1"]
    hostile = '192.0.2.7\\"},{\\u001b'
    assert who(server, X_Forwarded_For=hostile) == ["127.0.0.1", "http", "127.0.0.1"]


@pytest.mark.any_worker_class
@pytest.mark.parametrize("options", [(), ("--trusted_proxies", "10.0.0.0/8")])
def test_nobody_else_does(start, options):
    server = start("who.py", *JSON, *options)
    headers = {"X_Forwarded_For": "192.0.2.7", "Forwarded": "for=192.0.2.7"}
    assert who(server, **headers) == ["127.0.0.1", "http", "127.0.0.1"]
    # As with 1.5.1, a proxy on this machine may say that the client used https.
    assert who(server, X_Forwarded_Proto="https") == ["127.0.0.1", "https", "127.0.0.1"]


def test_networks_that_are_none_are_refused(start):
    server = start("echo.py", "--trusted_proxies", "10.0.0.0/40", ready=False)
    assert server.wait_for_exit() == 1
    assert "it must be IP addresses or networks such as 10.0.0.0/8" in server.stderr()


def test_serve_finds_the_port_in_json(tmp_path):
    script = tmp_path / "score.py"
    script.write_text("def init(): pass\ndef run(data): return 1\n")
    with serve(script, log_format="json") as server:
        assert server.client.score(json=1).json() == 1
