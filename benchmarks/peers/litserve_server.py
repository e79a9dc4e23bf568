"""The same for LitServe, which parses and renders JSON itself: scripts that read JSON have
``predict()`` for it."""

import os

import litserve
import scoring


class Scoring(litserve.LitAPI):
    """The service that runs in each worker process."""

    def setup(self, device):
        script = scoring.load()
        self.call = getattr(script, "predict", script.run)

    def decode_request(self, request):
        return request

    def predict(self, data):
        return self.call(data)

    def encode_response(self, result):
        return result


if __name__ == "__main__":
    server = litserve.LitServer(
        Scoring(api_path="/score"), accelerator="cpu", workers_per_device=int(os.environ["BENCH_WORKERS"])
    )
    server.run(host="127.0.0.1", port=int(os.environ["BENCH_PORT"]), generate_client_file=False)
