"""A supervisor without processes: what the tests of its decisions are made of.

Owns forks that always work and a clock that the test moves. Runs in the test process.
"""

from __future__ import annotations

from azureml_inference_server_http.events import (
    Exited,
    Log,
    Ready,
    Signalled,
    Spawned,
    SpawnFront,
    SpawnWorker,
    Started,
    Tick,
)
from azureml_inference_server_http.supervisor import Supervisor


class World:
    """A supervisor whose forks always work, and a clock that the test moves."""

    def __init__(self, worker_count=1, graceful_timeout=30.0, preloaded=False, longest_request=None):
        self.state = Supervisor(worker_count, graceful_timeout, preloaded, longest_request)
        self.now = 1000.0
        self.last_pid = 0
        self.fronts, self.workers = [], []
        self.started = self.tell(Started())

    def tell(self, event):
        """Handle an event, and the forks that follow from it as ``process.py`` does; all actions."""
        found = []
        for action in self.state.handle(event, self.now):
            found.append(action)
            if isinstance(action, (SpawnFront, SpawnWorker)):
                is_front = isinstance(action, SpawnFront)
                self.last_pid += 1
                (self.fronts if is_front else self.workers).append(self.last_pid)
                found += self.tell(Spawned(self.last_pid, is_front))
        return found

    def signal(self, number):
        return self.tell(Signalled(number))

    def exit(self, pid, code=0):
        for pids in (self.fronts, self.workers):
            if pid in pids:
                pids.remove(pid)
        return self.tell(Exited(pid, code))

    def wait(self, seconds):
        self.now += seconds
        return self.tell(Tick())

    def wake_up(self):
        """Let the time pass until the supervisor wants to be woken up."""
        at = self.state.next_wakeup()
        assert at is not None, "nothing is planned"
        return self.wait(max(0.0, at - self.now))

    def ready(self, *pids):
        return [action for pid in pids for action in self.tell(Ready(pid))]

    @property
    def front(self):
        (pid,) = self.fronts
        return pid


def without_logs(actions):
    return [action for action in actions if not isinstance(action, Log)]


def logs(actions, level):
    return [action.text for action in actions if isinstance(action, Log) and action.level == level]
