"""The command on a terminal: the short start, colours, progress, and errors in its options. Off a terminal nothing of
that is there; what is there then is in ``test_start.py``."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from collections.abc import Iterator

import pytest
from harness import COMMAND, eventually

CODES = re.compile(r"\x1b\[[0-9;]*[mK]")
SLOW = """
import os, time
def init():
    print("Loading shard 3 of 7")
    while not os.path.exists("go"):
        time.sleep(0.01)
def run(data): return data
"""


class Screen:
    """A terminal, and everything that was written to it."""

    def __init__(self) -> None:
        self._master, self.descriptor = pty.openpty()
        self._received = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self._received += os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the other end open any more
                os.close(self._master)
                return

    @property
    def raw(self) -> str:
        return self._received.decode(errors="replace").replace("\r\n", "\n")

    @property
    def text(self) -> str:
        return CODES.sub("", self.raw)

    def close(self) -> None:
        os.close(self.descriptor)


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    made.close()


@pytest.mark.any_worker_class
def test_a_terminal_gets_a_short_start_and_colours(start, screen):
    server = start("echo.py", "--max_queue", "7", stdout=screen.descriptor, TERM="xterm")
    assert server.score("x").status == 200
    assert server.get("/nowhere").status == 404
    eventually(lambda: "/nowhere" in screen.text or "POST /score 200" in screen.text, "the line of the request")
    assert f"  address  http://127.0.0.1:{server.port} and every other" in screen.text
    assert "--max_queue=7" in screen.text
    assert "Press Ctrl-C to stop the server." in screen.text
    assert "Server Settings" not in screen.text
    assert re.search(r"POST /score \x1b\[32m200\x1b\[0m \d", screen.raw)
    assert re.search(r" I \[\d+\] azmlinfsrv - Worker with pid \d+ ready for serving traffic", screen.text)


@pytest.mark.parametrize(
    ("options", "environment", "short"),
    [((), {"NO_COLOR": "1"}, True), (("--plain",), {"FORCE_COLOR": "1"}, False), ((), {"TERM": "dumb"}, False)],
)
def test_a_terminal_without_colours(start, screen, options, environment, short):
    server = start("echo.py", *options, stdout=screen.descriptor, **{"TERM": "xterm", **environment})
    assert server.score("x").status == 200
    eventually(lambda: "POST /score 200" in screen.text, "the line of the request")
    assert "\x1b" not in screen.raw
    assert ("Server Settings" not in screen.raw) == short


def test_a_file_gets_colours_only_if_they_are_forced(start):
    server = start("echo.py", FORCE_COLOR="1")
    assert server.score("x").status == 200
    eventually(lambda: re.search(r"POST /score \x1b\[32m200\x1b\[0m", server.stdout()), "the line of the request")
    assert "Server Settings" in server.stdout()
    plain = start("echo.py")
    assert plain.score("x").status == 200
    plain.wait_for_record("POST /score 200")
    assert "\x1b" not in plain.stdout()


@pytest.mark.any_worker_class
def test_a_slow_start_shows_its_progress(start, screen, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    server = start(str(tmp_path / "slow.py"), stdout=screen.descriptor, ready=False, TERM="xterm")
    drawn = r"\x1b\[KThe script is loading: \d+ s, \d+ MiB, Loading shard 3 of 7\r"
    eventually(lambda: re.search(drawn, screen.raw), "the progress")
    (server.folder / "go").touch()
    server.wait_until_ready()
    # What is written next erases the line.
    eventually(lambda: re.search(r"of 7\r\x1b\[K\x1b\[2m\S+ \S+\x1b\[0m I .* has completed", screen.raw), "the record")
    count = len(re.findall(drawn, screen.raw))
    assert server.score("x").status == 200
    assert len(re.findall(drawn, screen.raw)) == count


@pytest.mark.parametrize(
    ("option", "similar"),
    [("--worker_cuont", "--worker_count, --worker_env, --worker_class"), ("--max-que", "--max_queue"), ("--zzz", "")],
)
def test_a_mistyped_option_on_a_terminal_shows_similar_names_and_no_help(screen, option, similar):
    command = [*COMMAND, "--entry_script", "score.py", option]
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm"}
    done = subprocess.run(command, stdout=screen.descriptor, stderr=subprocess.PIPE, env=environment, timeout=50)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert lines[0] == "usage: azmlinfsrv --entry_script FILE [options]"
    assert lines[1].startswith(f"azmlinfsrv: error: unrecognized arguments: {option}")
    assert (f"Options with similar names: {similar}" in lines[2]) == bool(similar)
    assert lines[-1] == "azmlinfsrv --help lists all options."
    assert screen.raw == ""
