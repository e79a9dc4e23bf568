"""Batches of LitServe: ``predict()`` of the script for the rows of up to BENCH_BATCH requests."""

import os

import litserve
import numpy as np
import scoring


class Scoring(litserve.LitAPI):
    """The service that runs in the worker process."""

    def setup(self, device):
        self.script = scoring.load()

    def decode_request(self, request):
        return np.array(request["data"], np.float32)

    def batch(self, inputs):
        return np.concatenate(inputs)

    def predict(self, data):
        return self.script.predict(data)

    def unbatch(self, output):
        return [[int(kind)] for kind in output]

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    api = Scoring(
        api_path="/score",
        max_batch_size=int(os.environ["BENCH_BATCH"]),
        batch_timeout=float(os.environ["BENCH_WAIT_MS"]) / 1000,
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False, log_level="warning")
