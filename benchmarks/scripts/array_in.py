"""A numpy array by schema, and two figures about it: the time goes into reading the request."""

import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema


def init():
    pass


@input_schema("data", NumpyParameterType(np.zeros((2, 100)), enforce_shape=False))
def run(data):
    return {"shape": list(data.shape), "sum": round(float(data.sum()), 3)}
