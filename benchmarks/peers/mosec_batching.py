"""Batches of mosec: ``predict()`` of the script for the rows of up to BENCH_BATCH requests. Its
options (``--port``) are read by mosec itself."""

import json
import os

import numpy as np
import scoring
from mosec import Server, Worker


class Scoring(Worker):
    """The service that runs in the worker process."""

    def __init__(self):
        super().__init__()
        self.script = scoring.load()

    def deserialize(self, data):
        return np.array(json.loads(data)["data"], np.float32)

    def forward(self, data):
        return [[int(kind)] for kind in self.script.predict(np.concatenate(data))]

    def serialize(self, data):
        return json.dumps(data).encode()


if __name__ == "__main__":
    server = Server()
    batch, wait = int(os.environ["BENCH_BATCH"]), int(os.environ["BENCH_WAIT_MS"])
    server.append_worker(Scoring, num=1, max_batch_size=batch, max_wait_time=wait, route="/score")
    server.run()
