"""Batches of Ray Serve: ``predict()`` of the script for the rows of up to BENCH_BATCH requests, in one
replica of a node of its own."""

import json
import os
import signal
import sys

# Ray's default is too short for a machine that does other things too.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")

import numpy as np
import ray
import scoring
from ray import serve
from starlette.responses import Response

# More than the connections of a measurement, so that no request waits in the proxy.
ONGOING = 100


@serve.deployment(max_ongoing_requests=ONGOING)
class Scoring:
    """The service that runs in the replica."""

    def __init__(self):
        self.script = scoring.load()

    @serve.batch(
        max_batch_size=int(os.environ["BENCH_BATCH"]), batch_wait_timeout_s=float(os.environ["BENCH_WAIT_MS"]) / 1000
    )
    async def score(self, bodies):
        rows = [np.array(json.loads(body)["data"], np.float32) for body in bodies]
        return [[int(kind)] for kind in self.script.predict(np.concatenate(rows))]

    async def __call__(self, request):
        return Response(json.dumps(await self.score(await request.body())), media_type="application/json")


def main():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
        serve.run(Scoring.bind(), name="scoring", route_prefix="/score")
        signal.pause()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    main()
