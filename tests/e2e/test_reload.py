"""--reload: changed files start new workers, a broken change keeps the old ones, and no request is
lost."""

from __future__ import annotations

import os
import signal

import pytest
from harness import eventually, is_running

HEADER = "x-azmlinfsrv-reload"
DONE = "The new workers serve. An old worker exits when it has finished its requests."
SCRIPT = "import os\ndef init(): pass\ndef run(data): return [{!r}, os.getpid()]\n"
RETURNS = "def run(data): return x\n"
USES_HELPER = "import helper\ndef init(): pass\ndef run(data): return helper.ANSWER\n"


@pytest.fixture(params=["false", "true"], ids=["each worker loads the script", "a template loads the script"])
def preload(request):
    return request.param


@pytest.fixture
def edit(start, tmp_path, preload):
    """``edit(name, text)`` writes a file of the script, at one moment, so that the server never sees
    a part of it. ``edit.server(...)`` starts the server."""

    class Edit:
        def __call__(self, name, text):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            written = path.with_name(f".{path.name}.new")
            written.write_text(text)
            os.replace(written, path)

        def server(self, *options, **more):
            return start(
                str(tmp_path / "score.py"),
                "--reload",
                *options,
                WORKER_PRELOAD=preload,
                AML_APP_ROOT=str(tmp_path),
                **more,
            )

    return Edit()


def serves(server, answer):
    """Wait until the server answers this."""

    def probe():
        response = server.score()
        assert response.status == 200, str(response)
        found = response.json()
        return response if answer in (found, found[0] if isinstance(found, list) else None) else None

    return eventually(probe, f"{answer!r} is served")


def reloads(server):
    return [record for record in server.records("azmlinfsrv", level="I") if " changed. " in record.message]


def test_a_changed_script_is_served(edit):
    edit("score.py", SCRIPT.format("one"))
    server = edit.server("--worker_count", "2")
    before = server.wait_for_workers(2)
    edit("score.py", SCRIPT.format("two"))
    server.wait_for_record(DONE)
    server.wait_for_workers(2, instead_of=before)
    assert {server.score().json()[0] for _ in range(10)} == {"two"}
    assert reloads(server)[0].message.startswith("score.py changed. ")
    assert not server.records(level="E")


def test_a_broken_change_keeps_the_old_answers_and_says_so(edit):
    edit("score.py", SCRIPT.format("one"))
    server = edit.server()
    workers = server.wait_for_workers(1)
    assert server.score()[HEADER] is None
    edit("score.py", "import os\nx = 1 / 0\n")
    record = server.wait_for_record("The next change of a file starts another attempt.", level="E")
    assert record.message.startswith("score.py:2 ZeroDivisionError: division by zero. The new ")
    assert "1 worker goes on serving with the code loaded before." in record.message
    broken = eventually(lambda: server.score()[HEADER] and server.score(), "replies name the error")
    assert broken[HEADER] == "failed score.py:2 ZeroDivisionError"
    assert broken.json() == ["one", workers[0]]
    # Health and other routes are not about the script.
    assert server.get("/")[HEADER] is None
    # A front that starts later says it too.
    server.kill_front()
    eventually(lambda: server.score()[HEADER] == broken[HEADER], "replies of another front name the error")
    edit("score.py", SCRIPT.format("three"))
    serves(server, "three")
    eventually(lambda: server.score()[HEADER] is None, "replies name no error")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("def init(:\n", "failed score.py:1 SyntaxError"),
        ("def init(): raise LookupError('no model')\ndef run(data): pass\n", "failed score.py:1 LookupError"),
        ("import os\nos.kill(os.getpid(), 9)\n", "was killed by signal 9 (SIGKILL)"),
    ],
    ids=["syntax", "init()", "crash"],
)
def test_replies_name_what_is_broken(edit, text, where):
    edit("score.py", SCRIPT.format("one"))
    server = edit.server()
    edit("score.py", text)
    named = eventually(lambda: server.score()[HEADER], "replies name the error")
    assert named.endswith(where)
    assert server.score().json()[0] == "one"


def test_an_imported_module_is_watched_and_one_that_is_broken_too(edit):
    edit("helper.py", "ANSWER = 'one'\n")
    edit("score.py", USES_HELPER)
    server = edit.server()
    edit("helper.py", "import other\nANSWER = 'two'\n")
    named = eventually(lambda: server.score()[HEADER], "replies name the error")
    assert named == "failed helper.py:1 ModuleNotFoundError"
    # The missing module is written, and then mended: only this file changes.
    edit("other.py", "1 / 0\n")
    eventually(lambda: server.score()[HEADER] == "failed other.py:1 ZeroDivisionError", "it is loaded")
    edit("other.py", "\n")
    serves(server, "two")
    # The same length, and perhaps the same second: Python would take byte code for current.
    edit("helper.py", "import other\nANSWER = 'six'\n")
    serves(server, "six")


def test_a_module_that_is_imported_later_is_watched(edit):
    edit("helper.py", "ANSWER = 'one'\n")
    edit("score.py", "def init(): pass\ndef run(data):\n    import helper\n    return helper.ANSWER\n")
    server = edit.server()
    serves(server, "one")
    edit("helper.py", "ANSWER = 'two'\n")
    serves(server, "two")


def test_a_file_that_is_written_in_place_is_noticed_again_and_again(edit, tmp_path):
    edit("score.py", SCRIPT.format("one"))
    server = edit.server()
    for answer in ("two", "three"):
        (tmp_path / "score.py").write_text(SCRIPT.format(answer))
        serves(server, answer)


def test_a_file_that_an_editor_moves_away_first_is_noticed(edit, tmp_path):
    edit("score.py", SCRIPT.format("one"))
    server = edit.server()
    os.replace(tmp_path / "score.py", tmp_path / "score.py~")
    edit("score.py", SCRIPT.format("two"))
    serves(server, "two")


def test_a_change_while_init_runs_is_not_lost(edit, tmp_path):
    edit("score.py", SCRIPT.format("one"))
    server = edit.server()
    slow = "import time\ndef init():\n    open('waiting', 'w')\n    time.sleep(600)\ndef run(data): pass\n"
    edit("score.py", slow)
    eventually((server.folder / "waiting").exists, "init() runs")
    assert server.score().json()[0] == "one"
    edit("score.py", SCRIPT.format("three"))
    serves(server, "three")
    assert server.score()[HEADER] is None


def test_a_burst_of_changes_is_one_reload(edit, tmp_path):
    # 50 files change at the same moment, because a link to their folder is replaced.
    edit("score.py", f"def init():\n    global x\n    x = open({str(tmp_path / 'data/0')!r}).read()\n{RETURNS}")
    for number in range(50):
        edit(f"v1/{number}", "one")
        edit(f"v2/{number}", "two")
    (tmp_path / "data").symlink_to("v1")
    (tmp_path / "next").symlink_to("v2")
    server = edit.server("--reload_dir", str(tmp_path / "data"))
    serves(server, "one")
    os.replace(tmp_path / "next", tmp_path / "data")
    serves(server, "two")
    server.wait_for_record(DONE)
    (reload,) = reloads(server)
    assert reload.message.startswith("data/0 and 49 other files changed. ")


def test_all_files_of_a_folder_count_but_those_that_gitignore_excludes(edit, tmp_path):
    edit("score.py", f"def init():\n    global x\n    x = open({str(tmp_path / 'src/answer.txt')!r}).read()\n{RETURNS}")
    edit("src/answer.txt", "one")
    edit("more/answer.txt", "")
    edit("src/.gitignore", "*.log\nout/\n")
    edit("src/out/x.txt", "")
    folders = ("--reload_dir", str(tmp_path / "src"), "--reload_dir", str(tmp_path / "more"))
    server = edit.server(*folders)
    edit("src/run.log", "ignored")
    edit("src/out/x.txt", "ignored")
    edit("src/__pycache__/x.pyc", "ignored")
    edit("more/answer.txt", "x")
    server.wait_for_record(DONE)
    edit("src/answer.txt", "two")
    serves(server, "two")
    assert [record.message.partition(" changed")[0] for record in reloads(server)] == [
        "more/answer.txt",
        "src/answer.txt",
    ]


def test_requests_in_flight_are_not_lost(edit, tmp_path):
    edit("score.py", SCRIPT.format(0))
    server = edit.server("--worker_count", "2")
    before = server.wait_for_workers(2)
    with server.under_load() as answers:
        for version in range(1, 4):
            seen = len(answers)
            eventually(lambda seen=seen: len(answers) > seen + 20, "requests before it")
            edit("score.py", SCRIPT.format(version))
            eventually(lambda version=version: answers[-1].json()[0] == version, "the change is served")
        eventually(lambda: not any(map(is_running, before)), "the old workers are gone")
    assert {answer.status for answer in answers} == {200}
    assert {answer.json()[0] for answer in answers} == {0, 1, 2, 3}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_reload_ends_the_server(edit, number):
    edit("score.py", SCRIPT.format("one"))
    server = edit.server()
    edit("score.py", "import time\ndef init():\n    open('waiting', 'w')\n    time.sleep(600)\ndef run(data): pass\n")
    eventually((server.folder / "waiting").exists, "init() runs")
    server.signal(number)
    assert server.wait_for_exit() == 0
    eventually(lambda: not server.members(), "no process is left")
    assert not server.records(level="E")
    assert "Traceback" not in server.stderr()


def test_a_changed_logging_json_is_applied_and_a_broken_one_is_told(edit):
    handlers = '{{"version": 1, "disable_existing_loggers": false, "loggers": {{"mine": {{"level": "{}"}}}}}}'
    edit("score.py", "import logging\ndef init(): pass\ndef run(data): return logging.getLogger('mine').level\n")
    edit("logging.json", handlers.format("INFO"))
    server = edit.server()
    assert server.score().json() == 20
    edit("logging.json", handlers.format("ERROR"))
    serves(server, 40)
    edit("logging.json", "{")
    eventually(lambda: server.score()[HEADER], "replies name the error")
    assert server.score().json() == 40
    edit("logging.json", handlers.format("DEBUG"))
    serves(server, 10)


def test_a_changed_configuration_file_asks_for_a_restart(edit, tmp_path):
    edit("score.py", SCRIPT.format("one"))
    edit("config.json", "{}")
    server = edit.server("--config_file", str(tmp_path / "config.json"))
    edit("config.json", "{ }")
    server.wait_for_record("Its settings are read once: restart the server to apply them.", level="W")
    assert not reloads(server)


def test_a_watcher_that_dies_is_told_and_the_server_goes_on(edit):
    edit("score.py", SCRIPT.format("one"))
    server = edit.server()
    os.kill(server.watcher(), signal.SIGKILL)
    server.wait_for_record("changes of files are not noticed any more", level="E")
    assert server.score().status == 200
    server.signal(signal.SIGHUP)
    server.wait_for_record(DONE)


def test_reload_has_no_effect_with_threads(start, tmp_path):
    server = start("pid.py", "--reload", "--worker_class", "thread")
    server.wait_for_record(
        "--reload has no effect with --worker_class thread: threads share one interpreter, which cannot load a script "
        "again beside the first one."
    )
