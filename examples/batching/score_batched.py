"""Serves the ONNX model of make_model.py. run() takes the texts of several requests, and says which
of them are wrong."""

import json
import os

import numpy as np
import onnxruntime

from azureml_inference_server_http.api import batched


def init():
    global session
    path = os.path.join(os.environ["AZUREML_MODEL_DIR"], "network.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@batched(max_size=32, max_wait_ms=0)
def run(texts):
    results = [None] * len(texts)
    places, rows = [], []
    for place, text in enumerate(texts):
        data = json.loads(text)["data"]
        if len(data) == 1 and len(data[0]) == 64:
            places.append(place)
            rows.append(data[0])
        else:
            results[place] = ValueError("data has to be one row of 64 numbers")
    if rows:
        (chances,) = session.run(["chances"], {"rows": np.array(rows, np.float32)})
        for place, chance in zip(places, chances):
            results[place] = {"kind": [int(chance.argmax())], "chance": [round(float(chance.max()), 4)]}
    return results
