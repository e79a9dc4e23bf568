"""A script whose calls can be joined. The first value of a row can make a call wait, fail, or end the worker."""

import os
import signal
import time
from pathlib import Path

import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema

from azureml_inference_server_http.api import current_request

WAIT, FAIL, DIE, SLOW = 1001, 1002, 1003, 1004

seen = {}


def init():
    pass


@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
def run(data, kind="plain"):
    first = data[:, 0].tolist()
    print(f"run() got {len(data)} rows")
    request = current_request()
    if seen.setdefault(request.request_id, request) is not request or request.is_finished:
        print("a request has two objects")
    if WAIT in first:
        Path("waits").touch()
        while not Path("go").exists():
            time.sleep(0.01)
    if FAIL in first:
        raise ValueError("a bad row")
    if DIE in first:
        os.kill(os.getpid(), signal.SIGKILL)
    # No job is sent ahead to a worker whose calls take more than 2 ms, so jobs wait in the queue for the next batch.
    time.sleep(0.005 + 0.8 * first.count(SLOW))
    if kind == "mean":
        return {"mean": float(data.mean())}
    if kind == "centred":
        return (data - data.mean()).tolist()
    return {"sum": data.sum(axis=1), "rows": [str(row) for row in data.tolist()]}
