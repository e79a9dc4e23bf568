"""A supervisor without processes and threads: what the tests of its decisions are made of.

Owns children that always start and a clock that the test moves. Runs in the test process.
"""

from __future__ import annotations

from azureml_inference_server_http.supervise.events import (
    CountRestart,
    Exited,
    Loaded,
    Log,
    Ready,
    Role,
    Signalled,
    Spawned,
    SpawnFront,
    SpawnTemplate,
    SpawnWorker,
    Started,
    Tick,
)
from azureml_inference_server_http.supervise.state import Supervisor
from azureml_inference_server_http.supervise.worker_kinds import PROCESSES

_ROLES = {SpawnFront: Role.FRONT, SpawnTemplate: Role.TEMPLATE, SpawnWorker: Role.WORKER}


class World:
    """A supervisor whose children always start, and a clock that the test moves."""

    def __init__(self, worker_count=1, graceful_timeout=30.0, kind=PROCESSES, longest_request=None, **more):
        self.state = Supervisor(worker_count, graceful_timeout, kind, longest_request, **more)
        self.now = 1000.0
        self.last_pid = 0
        self.restarts = []
        # The slots of all workers that were asked for.
        self.slots = []
        self.fronts, self.templates, self.workers = [], [], []
        self.started = self.tell(Started())

    def tell(self, event):
        """Handle an event, and report the starts that it causes, as ``supervise/supervising.py``
        does. Returns all actions, but not the counts of restarts, which are in ``restarts``, and not the slots of
        workers, which are in ``slots``."""
        found = []
        for action in self.state.handle(event, self.now):
            if isinstance(action, CountRestart):
                self.restarts.append(action.reason)
                continue
            if isinstance(action, SpawnWorker):
                self.slots.append(action.slot)
                action = action._replace(slot=0)
            found.append(action)
            if type(action) in _ROLES:
                role = _ROLES[type(action)]
                self.last_pid += 1
                {Role.FRONT: self.fronts, Role.TEMPLATE: self.templates, Role.WORKER: self.workers}[role].append(
                    self.last_pid
                )
                found += self.tell(Spawned(self.last_pid, role, getattr(action, "template", None)))
        return found

    def load(self):
        """The newest template has loaded the script."""
        return self.tell(Loaded(self.templates[-1]))

    def signal(self, number):
        return self.tell(Signalled(number))

    def exit(self, pid, code=0):
        for pids in (self.fronts, self.templates, self.workers):
            if pid in pids:
                pids.remove(pid)
        return self.tell(Exited(pid, code))

    def wait(self, seconds):
        self.now += seconds
        return self.tell(Tick())

    def wake_up(self):
        """Move the clock to the time of the supervisor's next planned Tick, and send the Tick."""
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
