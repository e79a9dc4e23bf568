"""A logging.json that names a formatter, a filter and a handler of the user's own."""

from __future__ import annotations

import json

import pytest
from harness import eventually

MODULE = """
import json, logging, os, queue, threading

class Json(logging.Formatter):
    def __init__(self, colour):
        super().__init__()
        self.colour = colour

    def format(self, record):
        import json_of_the_user  # an import at the time of the first record
        return json_of_the_user.dumps({"colour": self.colour, "pid": record.process, "text": record.getMessage()})

class Redact(logging.Filter):
    def filter(self, record):
        if "break" in record.getMessage():
            raise KeyError("the filter is broken")
        record.msg, record.args = record.getMessage().replace("secret", "***"), ()
        return "drop me" not in record.msg

class ToFile(logging.Handler):
    def emit(self, record):
        with open("handled", "a") as file:
            file.write(f"{record.process} {record.getMessage()}\\n")

class InThread(logging.Handler):
    # As handlers do that send records over the network.

    def __init__(self):
        super().__init__()
        self.records = queue.SimpleQueue()
        threading.Thread(target=self.write, daemon=True).start()

    def emit(self, record):
        self.records.put(record)

    def write(self):
        while True:
            record = self.records.get()
            with open("from_thread", "a") as file:
                file.write(f"{os.getpid()} {record.getMessage()}\\n")
"""
CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "log_classes.Json", "colour": "red"}},
    "filters": {"redact": {"()": "log_classes.Redact"}},
    "handlers": {
        "out": {
            "class": "logging.StreamHandler",
            "formatter": "json",
            "filters": ["redact"],
            "stream": "ext://sys.stdout",
        },
        "file": {"class": "log_classes.ToFile", "filters": ["redact"]},
    },
    "loggers": {"azmlinfsrv": {"level": "INFO", "handlers": ["out", "file"], "propagate": False}},
}
SCRIPT = """
def init():
    print("secret of init")

def run(data):
    print(f"run got {data}")
    return data
"""


def check(server):
    """Check that the user's classes have made the lines of the command, the worker and the
    front."""
    assert server.request("POST", "/score?secret", "drop me").status == 200
    assert server.request("POST", "/score?secret", "secret").status == 200
    server.get("/nowhere?secret")
    [worker], front = server.workers(), server.own_pid() if server.has_threads else server.front()

    def lines():
        return [json.loads(line) for line in server.stdout().splitlines() if line.startswith("{")]

    eventually(lambda: any("GET /nowhere" in line["text"] for line in lines()), "the line of the last request")
    found = {(line["pid"], line["text"].split(" 200 ")[0].split(" 404 ")[0]) for line in lines()}
    assert {line["colour"] for line in lines()} == {"red"}
    assert {(worker, "run got ***"), (worker, "POST /score?***"), (front, "GET /nowhere?***")} <= found
    assert [text for pid, text in found if text.startswith("Loaded logging config from ") and pid == server.own_pid()]
    assert [text for _, text in found if text == "*** of init"]
    assert "secret" not in server.stdout().partition("Worker with pid")[2]
    assert "drop me" not in server.stdout()

    def handled(beginning):
        return [line for line in (server.folder / "handled").read_text().splitlines() if line.startswith(beginning)]

    assert handled(f"{worker} POST /score?*** 200")
    # This handler comes after the one that has written the line to standard output.
    eventually(lambda: handled(f"{front} GET /nowhere?*** 404"), "the line of the last request is in the file")
    assert not server.records()


@pytest.fixture
def begin(start):
    """A server whose classes are in the folder ``classes``, and script and logging.json in
    ``root``."""

    def begin_one(classes, root=".", config=CONFIG, **environment):
        files = {f"{classes}/log_classes.py": MODULE, f"{classes}/json_of_the_user.py": "from json import dumps"}
        files |= {f"{root}/score.py": SCRIPT, f"{root}/logging.json": json.dumps(config)}
        return start(None, "--entry_script", f"{root}/score.py", files=files, **environment)

    return begin_one


@pytest.mark.any_worker_class
def test_classes_beside_the_script(begin):
    check(begin("."))


def test_classes_beside_a_preloaded_script(begin):
    check(begin(".", WORKER_PRELOAD="true"))


@pytest.mark.any_worker_class
@pytest.mark.parametrize("classes", ["root", "current", "root/src"])
def test_classes_in_the_app_root_the_current_folder_and_the_source_directory(begin, classes):
    folder = "." if classes == "current" else classes
    check(begin(folder, "root", AML_APP_ROOT="root", AZUREML_SOURCE_DIRECTORY="src"))


@pytest.mark.any_worker_class
def test_a_filter_that_fails_costs_its_record_and_nothing_else(begin):
    server = begin(".")
    before = server.workers()
    for target in ("/score?break", "/score?secret"):
        assert server.request("POST", target, "break").text == '"break"'
    server.get("/break")
    eventually(lambda: server.stderr().count("KeyError: 'the filter is broken'") >= 8, "both handlers, four records")
    assert "POST /score?***" in server.stdout()
    assert "break" not in server.stdout()
    assert server.workers() == before


@pytest.mark.any_worker_class
def test_a_handler_with_a_thread_works_in_every_process(begin):
    handler = {"class": "log_classes.InThread"}
    logger = {"level": "INFO", "handlers": ["thread"], "propagate": False}
    config = {"version": 1, "handlers": {"thread": handler}, "loggers": {"azmlinfsrv": logger}}
    server = begin(".", config=config)
    server.score("x")
    server.get("/nowhere")
    [worker], front = server.workers(), server.own_pid() if server.has_threads else server.front()
    wanted = [f"{server.own_pid()} Listening at: ", f"{worker} run got x", f"{front} GET /nowhere 404 "]

    def written():
        return (server.folder / "from_thread").read_text()

    eventually(lambda: all(text in written() for text in wanted), "lines of the supervisor, the worker and the front")
    assert written().count("run got x") == 1
