"""Standard streams that are closed, full, or lose their reader: the server serves and obeys all the
same."""

from __future__ import annotations

import os
import select
import signal

import pytest
from harness import eventually, is_running
from surroundings import fill


def drain(reader):
    """Read everything that is in the pipe now."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    found = b""
    while poll.poll(0):
        found += os.read(reader, 65536)
    return found.decode()


def replace(server, number=signal.SIGKILL):
    """Kill the only worker. Returns the pid of the next one."""
    (old,) = server.workers()
    os.kill(old, number)
    eventually(lambda: not is_running(old), "the worker is dead")
    # Not by the log, which some of these servers do not have.
    (new,) = eventually(lambda: [pid for pid in server.workers() if pid != old], "another worker")
    assert server.score().json() == new
    return new


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "<&-", "2>&-"])
def test_closed_standard_streams_do_not_matter(start, closed):
    server = start("pid.py", through=("/bin/sh", "-c", f'exec "$@" {closed}', "sh"))
    for pid in (server.pid, server.front(), *server.workers()):
        assert all(os.path.exists(f"/proc/{pid}/fd/{number}") for number in range(3))
    replace(server)
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


def test_a_log_that_nobody_reads_holds_up_nothing(start, pipe):
    reader, writer = pipe
    server = start("pid.py", stdout=writer)
    fill(writer)
    first = replace(server)
    second = replace(server)
    server.signal(signal.SIGHUP)
    eventually(lambda: not is_running(second), "the worker is replaced")
    log = []
    # The lines that waited are written now, because the pipe is read.
    eventually(lambda: log.append(drain(reader)) or f"Worker (pid:{first}) was killed by" in "".join(log), "the lines")
    fill(writer)
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


def test_a_log_whose_reader_goes_away_holds_up_nothing(start, pipe):
    # The reader closes the pipe, as in `azmlinfsrv | head -1`.
    reader, writer = pipe
    server = start("pid.py", stdout=writer)
    os.close(writer)
    os.close(reader)
    for _ in range(2):
        replace(server)
    server.signal(signal.SIGHUP)
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0
    assert "Traceback" not in server.stderr()


def test_what_a_script_writes_itself_stays_in_its_place(start, tmp_path):
    script = tmp_path / "score.py"
    script.write_text(
        "import sys\n"
        "def init(): pass\n"
        "def run(data):\n    sys.stdout.write('written by hand\\n')\n    print('printed')\n    return 1\n"
    )
    server = start(str(script))
    assert server.score().status == 200
    record = server.wait_for_record("printed")
    assert record.logger == "azmlinfsrv.print"
    lines = server.stdout().splitlines()
    assert lines[lines.index("written by hand") + 1].endswith(" azmlinfsrv.print - printed")
