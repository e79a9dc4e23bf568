"""The smallest useful scoring script: ``init()`` makes the model, ``run()`` answers one request.

Served by the commands at the top of README.md. The server calls ``init()`` once in every worker
process, and ``run()`` for every request to ``/score``; a worker runs one call at a time, so the
model needs no lock.
"""

import json

weights = []


def init():
    # A real script loads a file from the folder in AZUREML_MODEL_DIR here; see examples/sklearn.
    global weights
    weights = [0.5, 2.0]


def run(data):
    # ``data`` is the body of the request, as text. The server sends the returned value as JSON.
    rows = json.loads(data)["data"]
    return {"scores": [sum(weight * value for weight, value in zip(weights, row)) for row in rows]}
