"""A server that runs out of something: disk space, folders to write to, descriptors, processes,
memory.

Some of it needs a mount namespace of its own, and with it root; those tests are skipped elsewhere.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from harness import eventually, is_running

PID = "import os\ndef init(): pass\ndef run(data): return os.getpid()\n"
LARGE = b"x" * (1 << 20)


def can_mount():
    if shutil.which("unshare") is None:
        return False
    mounting = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/tmp"]
    return subprocess.run(mounting, capture_output=True, check=False).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="no private mounts: not root, or no unshare")


def through(preparation):
    """Make a program that runs these shell commands, and then the command that it gets as
    arguments."""
    return (shutil.which("unshare") or "", "-m", "sh", "-ec", f'{preparation}\nexec "$@"', "sh")


def replace(server):
    """Kill a worker. Returns the pid of the next one that answers."""
    old = server.score().json()
    os.kill(old, signal.SIGKILL)
    eventually(lambda: not is_running(old), "the worker is dead")
    new = server.score().json()
    assert new != old
    return new


# ---- Folders


@needs_mounts
@pytest.mark.any_worker_class
def test_no_folder_that_can_be_written_is_needed(start, script):
    read_only = "mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp"
    for folder in ("/var/tmp", "/dev/shm"):
        read_only += f" && mount -t tmpfs -o ro none {folder}"
    server = start(script(PID), through=through(read_only))
    assert server.score().json() in server.workers()
    if not server.has_threads:
        assert replace(server) in server.workers()
        server.kill_front()
        assert server.score(LARGE).json() in server.workers()


@needs_mounts
def test_a_full_temporary_folder_kills_nobody(start, script, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    fill = f"mount -t tmpfs -o size=4k none {full}; head -c 8192 /dev/zero > {full}/rest || true"
    server = start(script(PID), "--worker_count", "2", through=through(fill), TMPDIR=str(full))
    first = server.wait_for_workers(2)
    for _ in range(50):
        assert server.score(LARGE).json() in first
    assert replace(server) in server.workers()
    assert "SIGBUS" not in server.stdout()


def test_the_temporary_folder_stays_empty(start, script):
    server = start(script(PID), "--worker_count", "2")
    server.wait_for_workers(2)
    assert server.score(LARGE).json() in server.workers()
    assert not list(server.temporary.iterdir())


@pytest.mark.parametrize("folder", ["missing", "n" * 120], ids=["missing", "too long for a socket"])
def test_an_unusable_temporary_folder_does_not_matter(start, script, tmp_path, folder):
    if folder != "missing":
        (tmp_path / folder).mkdir()
    server = start(script(PID), TMPDIR=str(tmp_path / folder))
    assert server.score().json() in server.workers()


# ---- Memory that is mapped

SHORTEN = """
import os

def shorten(path):
    try:
        with open(path, "r+b") as file:
            os.ftruncate(file.fileno(), 0)
        return "done"
    except OSError as error:
        return error.strerror

def init():
    pass

def run(data):
    # Open descriptors, and then mapped files, whose descriptor may be closed (root alone may list them).
    found = {}
    for folder in ("fd", "map_files"):
        folder = f"/proc/self/{folder}"
        for name in os.listdir(folder):
            try:
                target = os.readlink(f"{folder}/{name}")
            except OSError:
                continue
            if "azmlinfsrv" in target:
                found[target.split(":")[1].split()[0]] = shorten(f"{folder}/{name}")
    return [os.getpid(), found]
"""


def test_a_script_cannot_shorten_memory_under_the_front(start, script):
    server = start(script(SHORTEN), "--worker_count", "2")
    server.wait_for_workers(2)
    front = server.front()
    for _ in range(4):
        worker, found = server.score(LARGE).json()
        assert worker in server.workers()
        assert found["azmlinfsrv-bodies"] == "Operation not permitted"
        if os.geteuid() == 0:
            assert found["azmlinfsrv-claims"] == "Operation not permitted"
    assert server.front() == front


# ---- Descriptors


def test_a_worker_whose_script_has_used_up_the_descriptors_serves(start, script):
    server = start(
        script(
            "import os, resource\n"
            "def init():\n"
            "    free = os.open(os.devnull, os.O_RDONLY)\n"
            "    os.close(free)\n"
            "    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))\n"
            "def run(data): return os.getpid()\n"
        )
    )
    (worker,) = server.wait_for_workers(1)
    assert server.score(LARGE).json() == worker
    server.kill_front()
    # The same worker connects to the next front, and keeps its model.
    assert server.score(LARGE).json() == worker


def test_a_script_that_closes_what_it_did_not_open_is_told(start, script):
    server = start(script("import os\ndef init(): os.closerange(3, 100)\ndef run(data): return 1\n"), ready=False)
    assert server.wait_for_exit(60) == 3
    assert "the script has closed a file descriptor that it did not open" in server.output()


def test_connections_beyond_the_descriptors_are_one_line_in_the_log(start, script):
    server = start(script(PID), through=("/bin/sh", "-c", 'ulimit -n 60; exec "$@"', "sh"))
    idle = [server.connect() for _ in range(80)]
    said = server.wait_for_record("which waits until others are closed")
    assert "ulimit -n" in said.message
    # Longer than the pause between attempts to accept.
    idle[0].exchange("GET", "/")
    for connection in idle[:60]:
        connection.close()
    assert idle[-1].exchange("POST", "/score", b"x").json() in server.workers()
    assert server.score().status == 200
    assert len([record for record in server.records() if "Cannot accept" in record.message]) == 1


@pytest.mark.any_worker_class
@pytest.mark.parametrize("limit", [8, 9, 10, 11, 12, 14, 16, 18, 20])
def test_too_few_descriptors_to_start_are_told(start, script, limit):
    server = start(script(PID), through=("/bin/sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh"), ready=False)

    def decided():
        if server.process.poll() is not None:
            return True
        return "Too many open files" in server.output() or server.ready_pids()

    eventually(decided, "it serves, or says why not")
    assert server.ready_pids() or "Too many open files" in server.output()
    assert "panicked" not in server.output()


# ---- The disk of the log


@needs_mounts
@pytest.mark.any_worker_class
def test_a_log_on_a_full_disk_costs_its_lines_only(start, script, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    server = start(script(PID), through=through(f"mount -t tmpfs -o size=64k none {disk}\nexec > {disk}/log"))
    seen = Path(f"/proc/{server.pid}/root{disk}")
    rest = seen / "rest"
    with rest.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    told = "azmlinfsrv: the log cannot be written to standard output: No space left on device"

    def has_told():
        assert server.score().status == 200
        return told in server.stderr()

    eventually(has_told, "the line on standard error")
    if not server.has_threads:
        replace(server)
    rest.unlink()

    def goes_on():
        assert server.score().status == 200
        return "log records were lost: " in (seen / "log").read_text(errors="replace")

    eventually(goes_on, "the log")
    # The supervisor, the front and each of the two workers may report it once.
    assert server.stderr().count(told) <= 4
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0


# ---- Processes


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="not root, or no setpriv")
def test_a_worker_that_cannot_be_forked_is_told_once_and_tried_again(start):
    # The server runs as another user, because root has no such limit. The user may read all files
    # that root may.
    user = str(60_000 + os.getpid() % 5_000)
    may_read = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
    through = (shutil.which("setpriv"), f"--reuid={user}", "--clear-groups", *may_read)
    server = start("obey.py", "--worker_count", "2", through=through)
    server.wait_for_workers(2)

    def limit(soft):
        set_it = f"resource.prlimit(os.getppid(), resource.RLIMIT_NPROC, ({soft}, 1000))"
        return server.score(f"import resource; {set_it}; answer = os.getpid()").json()

    staying = limit(1)
    (other,) = set(server.workers()) - {staying}
    os.kill(other, signal.SIGKILL)
    said = server.wait_for_record("Cannot start a worker: Resource temporarily unavailable.")
    assert "ulimit -u" in said.message
    assert limit(1000) == staying
    server.wait_for_record("was killed by signal 9 (SIGKILL)")
    server.wait_for_workers(2, instead_of=[other])
    assert len([record for record in server.records() if "Cannot start a worker" in record.message]) == 1
