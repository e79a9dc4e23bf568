"""A call that holds the only worker of a server, so that other requests wait and share the next call.

Tests of batches import it. Runs in the test process.
"""

from __future__ import annotations

from harness import eventually

JSON = {"content_type": "application/json"}


class Held:
    """A call waits for the file ``go`` when it has made the file ``waits``. ``holder`` is the body of its request."""

    def __init__(self, server, holder):
        self.server = server
        self.files = [server.folder / name for name in ("waits", "go")]
        for file in self.files:
            file.unlink(missing_ok=True)
        self.holder = server.score_later(holder, **JSON)
        eventually(self.files[0].exists, "run() waits")

    def queued(self, count):
        text = f"azmlinfsrv_queue_depth {count}"
        eventually(lambda: f"{text}\n" in self.server.get("/metrics").text, f"{count} requests are queued")

    def go(self):
        self.files[1].touch()
        assert self.holder.result().status == 200
