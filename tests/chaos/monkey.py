"""Does harm to the servers of a chaos run: kills, stops, replaces and resizes at random, and notes
what it did.

Owns the choice, which derives from the seed, and the notes that ``invariants.py`` needs to tell who
may complain. What the script is to do to itself is handed to the clients as requests. Runs in a
thread of the test process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Callable, NamedTuple

from harness import Server

from .traffic import Traffic

# Seconds between two actions, on average.
PAUSE = 0.35
# Seconds for which a worker is stopped, one of these at random. The last is longer than a request
# may take.
STOPS = (0.05, 0.2, 0.5, 1.0, 7.0)
# Workers that a server may get beside its own.
MOST_ADDED = 2
FOR_EVER = float("inf")


class Harm(NamedTuple):
    """A process that was killed, or stopped for a while: what depended on it from ``began`` to
    ``ended`` may fail."""

    script: str
    pid: int
    began: float
    ended: float


class Deed(NamedTuple):
    """One action of the monkey, for the report."""

    time: float
    name: str
    script: str
    detail: str


class Monkey(threading.Thread):
    """A thread that harms servers at random until ``stop``, and then continues the workers that it
    has stopped."""

    def __init__(self, servers: Mapping[str, Server], traffic: Traffic, seed: int, worker_class: str) -> None:
        super().__init__(name="monkey", daemon=True)
        self._servers = servers
        self._traffic = traffic
        self._random = Random(f"{seed}/monkey")
        self._stopping = threading.Event()
        self._actions = PROCESS_ACTIONS if worker_class == "process" else THREAD_ACTIONS
        # Stopped workers: script, and when the harm began and has to end.
        self._stopped: dict[int, tuple[str, float, float]] = {}
        self._added: Counter[str] = Counter()
        self.diary: list[Deed] = []
        self.harms: list[Harm] = []
        self.front_deaths: list[Harm] = []

    # ---- Life

    def run(self) -> None:
        while not self._stopping.wait(self._random.expovariate(1 / PAUSE)):
            self._resume_due(time.monotonic())
            weights = [weight for weight, _ in self._actions.values()]
            name = self._random.choices(list(self._actions), weights)[0]
            script = self._random.choice(list(self._servers))
            detail = self._actions[name][1](self, script)
            if detail is not None:
                self.diary.append(Deed(time.monotonic(), name, script, detail))
        self._resume_due(FOR_EVER)
        for script in self._servers:
            while self.remove_worker(script) is not None:
                # A pause, because the system may merge signals of one kind that arrive together.
                time.sleep(0.3)

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def counts(self) -> Counter[str]:
        """How often each thing was done."""
        return Counter(deed.name for deed in self.diary)

    def _resume_due(self, now: float) -> None:
        for pid, (script, began, until) in list(self._stopped.items()):
            if now >= until:
                _send(pid, signal.SIGCONT)
                del self._stopped[pid]
                # One second more, because delayed requests continue only after SIGCONT.
                self.harms.append(Harm(script, pid, began, time.monotonic() + 1))

    # ---- Deeds. Each returns what the diary says, or None if there was nothing to do.

    def kill_worker(self, script: str) -> str | None:
        # Only if the server is healthy, because the command gives up when no worker ever gets
        # ready.
        return self._kill(script, self._a_worker(script)) if self._is_healthy(script) else None

    def kill_all_workers(self, script: str) -> str | None:
        if not self._is_healthy(script):
            return None
        return " ".join(filter(None, [self._kill(script, pid) for pid in self._servers[script].workers()]))

    def stop_worker(self, script: str) -> str | None:
        pid = self._a_worker(script)
        if pid is None or pid in self._stopped:
            return None
        pause = self._random.choice(STOPS)
        now = time.monotonic()
        self._stopped[pid] = script, now, now + pause
        _send(pid, signal.SIGSTOP)
        return f"{pid} for {pause} s"

    def kill_front(self, script: str) -> str | None:
        if not self._is_healthy(script):
            return None
        began = time.monotonic()
        pid = self._servers[script].front()
        _send(pid, signal.SIGKILL)
        self.front_deaths.append(Harm(script, pid, began, time.monotonic()))
        return str(pid)

    def replace(self, script: str) -> str:
        self._servers[script].signal(signal.SIGHUP)
        return ""

    def replace_and_kill(self, script: str) -> str | None:
        """Send HUP, and kill the new worker before it is ready."""
        before = set(self._servers[script].workers())
        self.replace(script)
        self._stopping.wait(0.05)
        new = [pid for pid in self._servers[script].workers() if pid not in before]
        return " ".join(filter(None, [self._kill(script, pid) for pid in new[:1]]))

    def add_worker(self, script: str) -> str | None:
        if self._added[script] == MOST_ADDED:
            return None
        self._added[script] += 1
        self._servers[script].signal(signal.SIGTTIN)
        return ""

    def remove_worker(self, script: str) -> str | None:
        if self._added[script] == 0:
            return None
        self._added[script] -= 1
        self._servers[script].signal(signal.SIGTTOU)
        return ""

    def _kill(self, script: str, pid: int | None) -> str | None:
        if pid is None:
            return None
        self.harms.append(Harm(script, pid, time.monotonic(), FOR_EVER))
        _send(pid, signal.SIGKILL)
        return str(pid)

    def _a_worker(self, script: str) -> int | None:
        workers = self._servers[script].workers()
        return self._random.choice(sorted(workers)) if workers else None

    def _is_healthy(self, script: str) -> bool:
        return is_healthy(self._servers[script])


def is_healthy(server: Server) -> bool:
    """True if the server reports that a worker is ready; false if the front dies meanwhile."""
    try:
        return server.get("/").status == 200
    except OSError:
        return False


def _send(pid: int, number: signal.Signals) -> None:
    # Children of the command stay zombies until it has reaped them, so the number can hardly have
    # passed to a stranger.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


Action = Callable[[Monkey, str], "str | None"]


def ask_for(kind: str) -> Action:
    """Make an action that has the next client send a request of this kind."""

    def action(monkey: Monkey, script: str) -> str:
        monkey._traffic.asked_for.append((kind, script))
        return ""

    return action


# The actions that work with worker threads too: names, weights and functions.
THREAD_ACTIONS: dict[str, tuple[int, Action]] = {
    "TTIN": (8, Monkey.add_worker),
    "TTOU": (8, Monkey.remove_worker),
    "hang": (4, ask_for("hang")),
    "stuck": (2, ask_for("stuck")),
    "late head": (3, ask_for("late head")),
}
PROCESS_ACTIONS: dict[str, tuple[int, Action]] = {
    **THREAD_ACTIONS,
    "kill worker": (20, Monkey.kill_worker),
    "kill all workers": (3, Monkey.kill_all_workers),
    "stop worker": (12, Monkey.stop_worker),
    "kill front": (8, Monkey.kill_front),
    "HUP": (8, Monkey.replace),
    "HUP, kill successor": (3, Monkey.replace_and_kill),
    "exit": (5, ask_for("exit")),
    "segfault": (5, ask_for("segfault")),
    "abort": (3, ask_for("abort")),
}
