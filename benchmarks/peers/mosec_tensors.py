"""Tensors of the Open Inference Protocol by mosec, which does not speak it.

The worker reads and writes as much of the protocol as the scenario needs, with numpy and without a copy. mosec does not
pass headers on, so the worker looks for the end of the JSON."""

import json
import os

import numpy
import scoring
from mosec import Server, Worker


class Scoring(Worker):
    """The service that runs in each worker process."""

    def __init__(self):
        super().__init__()
        self.script = scoring.load()

    def deserialize(self, data):
        # The bytes of the tensor follow the only array of inputs, whose end the client marks.
        end = data.find(b"]}", 0, 4096) + 2
        [tensor] = json.loads(data[:end])["inputs"]
        count = tensor["parameters"]["binary_data_size"] // 4
        return numpy.frombuffer(data, "<f4", count, end).reshape(tensor["shape"])

    def forward(self, data):
        return self.script.double(data)

    def serialize(self, data):
        size = {"binary_data_size": data.nbytes}
        output = {"name": "y", "datatype": "FP32", "shape": data.shape, "parameters": size}
        return b"".join((json.dumps({"model_name": "tensors", "outputs": [output]}).encode(), data))


if __name__ == "__main__":
    server = Server()
    server.append_worker(Scoring, num=int(os.environ["BENCH_WORKERS"]), route="/v2/models/tensors/infer")
    server.run()
