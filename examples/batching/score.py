"""Serves the ONNX model of make_model.py. The script knows nothing of batches: --max_batch_size makes
them."""

import os

import numpy as np
import onnxruntime
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema


def init():
    global session
    path = os.path.join(os.environ["AZUREML_MODEL_DIR"], "network.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@input_schema("data", NumpyParameterType(np.zeros((1, 64), np.float32)))
def run(data):
    (chances,) = session.run(["chances"], {"rows": data})
    return {"kind": chances.argmax(axis=1), "chance": chances.max(axis=1).astype(float).round(4)}
