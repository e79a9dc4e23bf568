"""The same for mosec: one stage of BENCH_WORKERS processes. Its options (``--port``) are read by
mosec itself."""

import os

import scoring
from mosec import Server, Worker


class Scoring(Worker):
    """The service that runs in each worker process."""

    def __init__(self):
        super().__init__()
        self.script = scoring.load()

    def deserialize(self, data):
        return data

    def forward(self, data):
        return scoring.answer(self.script, data)

    def serialize(self, data):
        return data.encode()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Scoring, num=int(os.environ["BENCH_WORKERS"]), route="/score")
    server.run()
