"""Gets the rows of a JSON body as a numpy array: ``@input_schema`` converts them, and describes
them in /swagger.json.

Served by the commands in README.md beside it.
"""

import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema

weights = None


def init():
    global weights
    weights = np.array([0.5, 2.0])


# The sample says what a body looks like: any number of rows, two columns, floating point.
@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
def run(data):
    return {"scores": (data @ weights).tolist()}
