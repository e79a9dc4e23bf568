"""A linear model with schemas: doubles a matrix in place, and adds a number."""

import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

MATRIX = NumpyParameterType(np.array([[1, 2, 3]], "f4"))


def init():
    pass


@input_schema("data", MATRIX)
@input_schema("offset", StandardPythonParameterType(1.5))
@output_schema(MATRIX)
def run(data, offset=0.0):
    data *= 2
    return (data + offset).tolist()
