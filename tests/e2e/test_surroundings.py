"""What a script sees of the process it runs in, which scripts have come to rely on (contract section 4)."""

from __future__ import annotations

import pytest
from harness import SCRIPTS, eventually, path_in_server

pytestmark = pytest.mark.any_worker_class


def test_a_script_sees_what_it_always_saw(shared, worker_class):
    server = shared("surroundings.py")
    assert server.score().json() == {
        "name": "entry_module",
        "file": path_in_server(SCRIPTS / "surroundings.py"),
        "in sys.modules": True,
        "main thread": worker_class == "process",
        "process of init": True,
        "loop is running": False,
        "flask is imported": False,
        "folder": path_in_server(server.folder),
        "port": str(server.port),
    }


def test_a_script_may_run_an_event_loop(shared):
    assert shared("surroundings.py").score("loop").json() == "ran"


def test_threads_of_init_live_while_the_worker_is_idle(shared):
    server = shared("surroundings.py")

    def beats_while_idle():
        before = server.score("beats").json()
        with server.connect() as idle:
            assert idle.is_silent(0.2)
        return server.score("beats").json() - before

    # A beat takes a little over a millisecond; a held lock would let none through.
    eventually(lambda: beats_while_idle() > 20, "the thread of init() runs")


def test_calls_never_overlap_in_a_worker(start):
    server = start("wait.py")
    first, second = server.score_later("a"), server.score_later("b")
    started = eventually(lambda: list(server.folder.glob("*.started")), "one of them runs")
    assert server.get("/").status == 200
    assert len(list(server.folder.glob("*.started"))) == len(started) == 1
    for name in "ab":
        (server.folder / f"{name}.go").touch()
    assert first.result().json() == second.result().json()


def test_flask_imported_by_init_gives_run_a_request_context(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import flask\ndef init(): pass\ndef run(data): return [flask.request.path, flask.request.method]\n"
    )
    assert start(str(script)).score("x").json() == ["/score", "POST"]


def test_flask_imported_by_run_gives_it_a_request_context(start):
    server = start("no_flask_until_run.py")
    assert [server.score().json() for _ in range(2)] == ["/score", "/score"]


def test_flask_imported_in_hiding_gives_the_next_call_a_request_context(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import importlib\ndef init(): pass\n"
        "def run(data): return importlib.import_module('fla' + 'sk').has_request_context()\n"
    )
    server = start(str(script))
    assert [server.score().json() for _ in range(3)] == [False, True, True]


def test_a_replaced_json_writes_every_result(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import functools, json\njson.dumps = functools.partial(json.dumps, ensure_ascii=False)\n"
        "def init(): json.JSONEncoder.default = lambda self, value: sorted(value)\n"
        "def run(data): return {2, 1} if data == 'set' else 'é'\n"
    )
    server = start(str(script))
    assert [server.score(data).body for data in ("set", "text")] == [b"[1, 2]", '"é"'.encode()]


def test_a_replaced_json_need_not_know_what_the_server_can_write(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import json, datetime\noriginal = json.dumps\njson.dumps = lambda value: original(value).encode()\n"
        "def init(): pass\n"
        "def run(data): return ['é', datetime.date(2020, 1, 2)] if data == 'date' else ['é']\n"
    )
    server = start(str(script))
    assert [server.score(data).body for data in ("date", "text")] == [b'["\\u00e9", "2020-01-02"]', b'["\\u00e9"]']


def test_neighbours_of_the_current_folder_can_be_imported(start, tmp_path):
    script = tmp_path / "elsewhere.py"
    script.write_text("import neighbour\ndef init(): pass\ndef run(data): return neighbour.VALUE\n")
    assert start(str(script), files={"neighbour.py": "VALUE = 5\n"}).score().json() == 5
