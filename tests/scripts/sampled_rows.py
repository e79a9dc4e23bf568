"""A script whose calls can be joined, and of which every second joint call has a sample. The answers to large numbers
depend on the other rows. A row that begins with 1001 makes a call wait."""

import time
from pathlib import Path

import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema

from azureml_inference_server_http.scripting import batch_checks


def init():
    batch_checks.SAMPLED_CALLS = 2


@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
def run(data):
    print(f"run() got {len(data)} rows")
    if data[0, 0] == 1001:
        Path("waits").touch()
        while not Path("go").exists():
            time.sleep(0.01)
    # No job is sent ahead to a worker whose calls take more than 2 ms, so jobs wait in the queue for the next batch.
    time.sleep(0.005)
    return (data - data.mean() if (data > 100).all() else data).tolist()
