"""``--record``: what is written of requests and answers, that validate and replay accept it, and that no request is
harmed by it."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from harness import COMMAND, IS_WINDOWS, Server, eventually, path_in_server

pytestmark = pytest.mark.any_worker_class

TEXT = """
import json

def init(): pass

def run(data):
    if data == "fail":
        raise KeyError(data)
    value = json.loads(data)
    return {"doubled": [2 * x for x in value["data"]]} if "data" in value else value
"""
RAW = """
from flask import Response
from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse

def init(): pass

@rawhttp
def run(request):
    kind = request.args.get("kind", "echo")
    if kind == "stream":
        return Response((f"part {n}\\n" for n in range(3)), mimetype="text/plain")
    if kind == "gone":
        return AMLResponse({"message": "no such flower"}, 404, json_str=True)
    if kind == "type":
        return AMLResponse([request.method, request.headers.get("Content-Type")], 200, json_str=True)
    headers = {"X-Model": "7", "Set-Cookie": "session=s3cret", "Content-Type": "application/octet-stream"}
    return AMLResponse(request.get_data()[::-1], 200, headers)
"""
SECRETS = {"Authorization": "Bearer s3cret", "Cookie": "id=s3cret", "X-Api-Key": "s3cret", "X-User": "somebody"}


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    (folder / "text.py").write_text(TEXT)
    (folder / "raw.py").write_text(RAW)
    return folder


def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, command, *arguments], capture_output=True, text=True, timeout=50)


def recorded(folder: Path, count: int) -> list[dict[str, object]]:
    """The recorded requests, when there are that many."""
    eventually(lambda: len(list(folder.glob("*.request.json"))) >= count, f"{count} requests are recorded")
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.request.json"))]


def end(server: Server) -> None:
    """End the server, so that everything is written."""
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


def assert_replays(folder: Path, script: Path, start, count: int) -> None:
    """validate and replay get the recorded answers from the same script."""
    validated = run("validate", "--entry_script", str(script), "--samples", str(folder))
    assert validated.returncode == 0, validated.stdout
    assert validated.stdout.count("sample recorded-") == count
    server = start(str(script))
    replayed = run("replay", "--url", f"http://127.0.0.1:{server.port}", "--samples", str(folder))
    assert replayed.returncode == 0, replayed.stdout
    assert f"{count} of {count} answers are as expected." in replayed.stdout


def test_a_script_that_gets_text(start, scripts, tmp_path):
    folder = tmp_path / "recorded"
    server = start(str(scripts / "text.py"), "--record", str(folder))
    headers = {"Content-Type": "application/json", **SECRETS}
    assert server.request("POST", "/score", '{"data": [1, 2.5]}', headers).status == 200
    assert server.request("POST", "/score", '{"key":  "\u00e9"}'.encode(), headers).status == 200
    assert server.score("fail").status == 500
    assert server.request("GET", "/score?a=1&b=x%20y&token=s3cret").status == 200
    # None of these is about the script.
    server.get("/")
    server.get("/swagger.json")
    server.request("OPTIONS", "/score")
    server.request("HEAD", "/score")
    server.request("PUT", "/score")
    requests = recorded(folder, 4)
    end(server)
    assert len(requests) == 4
    assert [each["method"] for each in requests] == ["POST", "POST", "POST", "GET"]
    assert requests[0]["headers"] == {
        **{"accept-encoding": "identity", "content-type": "application/json", "x-user": "somebody"},
        **{"authorization": "redacted", "cookie": "redacted", "x-api-key": "redacted"},
    }
    assert requests[3]["query"] == "a=1&b=x%20y&token=REDACTED"
    bodies = [folder / str(each["body_file"]) for each in requests[:3]]
    assert [body.read_bytes() for body in bodies] == [
        *(b'{"data": [1, 2.5]}', '{"key":  "\u00e9"}'.encode(), b"fail"),
    ]
    assert not [path for path in folder.glob("*") if path.is_file() and "s3cret" in path.read_text()]
    # The script has put the value that the sample hides into its answer, and bodies are written as they are.
    (folder / "recorded-00004.response.json").write_text('{"status": 200}')
    assert_replays(folder, scripts / "text.py", start, 4)


def test_a_script_that_gets_requests(start, scripts, tmp_path):
    folder = tmp_path / "recorded"
    server = start(str(scripts / "raw.py"), "--record", str(folder))
    binary = bytes(range(256)) * 1200  # so large that it goes through memory that front and workers share
    assert server.request("POST", "/score", binary, {"Content-Type": "image/png", **SECRETS}).body == binary[::-1]
    assert server.request("POST", "/score?kind=stream", "x").body == b"part 0\npart 1\npart 2\n"
    assert server.request("POST", "/score?kind=gone", "x").status == 404
    assert server.request("POST", "/score?kind=type", "no type").json() == ["POST", None]
    assert server.request("GET", "/score?kind=type").json() == ["GET", None]
    assert server.request("HEAD", "/score?kind=type").status == 200
    assert server.request("OPTIONS", "/score?kind=type").json() == ["OPTIONS", None]
    requests = recorded(folder, 7)
    end(server)
    assert requests[3]["headers"] == {"accept-encoding": "identity", "content-type": None}
    answer = json.loads((folder / "recorded-00001.response.json").read_text())
    assert answer["headers"] == {"content-type": "application/octet-stream", "x-model": "7"}
    assert_replays(folder, scripts / "raw.py", start, 7)


def test_another_answer_is_a_difference(start, scripts, tmp_path):
    folder = tmp_path / "recorded"
    server = start(str(scripts / "text.py"), "--record", str(folder))
    server.score('{"data": [1]}')
    recorded(folder, 1)
    end(server)
    (scripts / "other.py").write_text(TEXT.replace("2 * x", "3 * x"))
    found = run("validate", "--entry_script", str(scripts / "other.py"), "--samples", str(folder))
    assert found.returncode == 1
    assert "expected" in found.stdout


def test_what_is_recorded_is_bounded_and_private(start, scripts, tmp_path):
    folder = tmp_path / "recorded"
    options = ("--record", str(folder), "--record_count", "2", "--record_body_size", "20")
    server = start(str(scripts / "text.py"), *options)
    assert server.score(json.dumps({"data": list(range(100))})).status == 200
    assert server.score('{"a": 1}').status == 200
    assert server.score('{"data": [1, 2, 3]}').status == 200
    assert server.score('{"a": 2}').status == 200
    record = server.wait_for_record("no more are recorded", logger="azmlinfsrv.record")
    assert f"{path_in_server(folder)} has 2 recorded requests (--record_count)" in record.message
    record = server.wait_for_record("Requests recorded in", logger="azmlinfsrv.record")
    assert "(--record): 2." in record.message
    assert record.message.endswith("Not recorded: 1 with a body above --record_body_size.")
    end(server)
    names = sorted(path.name for path in folder.glob("*.json"))
    assert names == [f"recorded-0000{n}.{part}.json" for n in (1, 2) for part in ("request", "response")]
    # The second answer was above the limit.
    assert "body_file" in json.loads((folder / names[1]).read_text())
    assert "body_file" not in json.loads((folder / names[3]).read_text())
    # On Windows, the permissions are those of the folder above.
    if not IS_WINDOWS:
        for path in (folder, folder / "bodies"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()} == {0o600}
    again = start(str(scripts / "text.py"), *options)
    assert again.score('{"a": 3}').status == 200
    again.wait_for_record("no more are recorded", logger="azmlinfsrv.record")
    assert len(list(folder.glob("*.json"))) == 4


def test_a_disk_that_refuses_costs_one_line_and_no_request(start, scripts, tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder = tmp_path / "file" / "recorded"
    server = start(str(scripts / "text.py"), "--record", str(folder))
    for _ in range(5):
        assert server.score("{}").status == 200
    record = server.wait_for_record("Cannot record a request", logger="azmlinfsrv.record", level="W")
    assert path_in_server(folder) in record.message
    (tmp_path / "file").unlink()
    assert server.score('{"a": 1}').status == 200
    server.wait_for_record("are recorded in", logger="azmlinfsrv.record")
    recorded(folder, 1)
    end(server)
    assert len(server.records(logger="azmlinfsrv.record", level="W")) == 1
    (ended,) = [record for record in server.records(logger="azmlinfsrv.record") if "recorded in" in record.message][-1:]
    # The thread may have been late, so some of the first five may have been written too.
    told = re.search(r"\(--record\): (\d)\. Not recorded: (\d) that could not be written\.$", ended.message)
    assert told, ended.message
    assert int(told[1]) + int(told[2]) == 6
