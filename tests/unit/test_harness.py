"""What the end-to-end tests count as the processes of a server, whenever they look."""

import itertools
import sys

import harness
import pytest
from harness import Server, eventually

# A command whose front has its parent's name until the file "go" appears, as every child has it for a moment.
COMMAND = """
import os, signal, time
for role in ("azml:worker-1", "azml:front"):
    if os.fork() == 0:
        # Renamed when it is complete, because the test reads the file as soon as it exists.
        with open(f"unfinished {role}", "w") as born:
            born.write(str(os.getpid()))
        os.rename(f"unfinished {role}", f"born {role}")
        while role == "azml:front" and not os.path.exists("go"):
            time.sleep(0.01)
        open("/proc/self/comm", "w").write(role)
        open(f"named {role}", "w").close()
        signal.pause()
signal.pause()
"""


@pytest.fixture
def server(tmp_path):
    found = Server(tmp_path, None, command=(sys.executable, "-c", COMMAND))
    eventually(lambda: all((tmp_path / name).exists() for name in ("named azml:worker-1", "born azml:front")), "births")
    yield found
    found._kill_all()
    found.stop()


def test_a_process_is_not_counted_before_it_has_a_name_of_its_own(server, monkeypatch):
    looks, processes = itertools.count(), harness.processes

    def look():
        if next(looks) == 2:
            (server.folder / "go").touch()
        return processes()

    monkeypatch.setattr(harness, "processes", look)
    pids = [int((server.folder / f"born azml:{role}").read_text()) for role in ("worker-1", "front")]
    assert [server.workers(), [server.front()]] == [[pid] for pid in pids]
    assert next(looks) > 2
