"""Takes numpy arrays by schema and tells all about them; also how many of them the server made
itself."""

import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema

made = []
empty = np.empty


def remembering_empty(*args, **kwargs):
    made.append(empty(*args, **kwargs))
    return made[-1]


# The server calls it; what makes an array of a list does not.
np.empty = remembering_empty


def init():
    pass


def any_shape(name, dtype):
    return input_schema(name, NumpyParameterType(np.ones(2, dtype), enforce_shape=False))


def told(array):
    assert type(array) is np.ndarray
    assert array.base is None
    return [array.dtype.str, array.shape, array.strides, str(array.flags), array.tobytes().hex()]


@any_shape("float64", np.float64)
@any_shape("float32", np.float32)
@any_shape("int64", np.int64)
@any_shape("int32", np.int32)
@any_shape("uint8", np.uint8)
@input_schema("rows", NumpyParameterType(np.ones((2, 3))))
def run(float64, float32, int64, int32, uint8, rows, other=None):
    arrays = float64, float32, int64, int32, uint8, rows
    passed = sum(any(array is one for one in made) for array in arrays)
    made.clear()
    return {"made": passed, "arrays": [*map(told, arrays), other]}
