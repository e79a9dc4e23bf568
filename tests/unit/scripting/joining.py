"""Scripts with a schema, and the arguments of their run(), for the tests of joint calls."""

from __future__ import annotations

import json

from azureml_inference_server_http import _core

NUMPY = """
import numpy as np
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType as N
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType as P
def init(): pass
"""


def arguments(script, values, **headers):
    """The arguments that a worker makes of a request with this body."""
    body = values if isinstance(values, bytes) else json.dumps(values).encode()
    fields = [("content-type", "application/json"), *headers.items()]
    made, problem = _core.arguments(script, method="POST", query=b"", headers=fields, body=body)
    assert problem is None
    return made


def join(batches, requests):
    """The joint calls that a worker makes for requests with these arguments."""
    return batches.join([None if each is None else batches.convert(each) for each in requests])
