"""One parameter of each standard kind, nested types, defaults, an output schema; answers with reprs
of arguments."""

import datetime

import numpy as np
import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

NESTED = StandardPythonParameterType(
    {
        "numbers": NumpyParameterType(np.array([[1, 2]])),
        "frame": PandasParameterType(pd.DataFrame({"a": [1], "b": ["x"]})),
        "plain": StandardPythonParameterType([1.5]),
        "name": StandardPythonParameterType("n"),
    }
)


def init():
    pass


@input_schema("i", StandardPythonParameterType(1))
@input_schema("f", StandardPythonParameterType(1.5))
@input_schema("s", StandardPythonParameterType("x"))
@input_schema("b", StandardPythonParameterType(True))
@input_schema("lst", StandardPythonParameterType([1, 2]))
@input_schema("tup", StandardPythonParameterType((1, 2)))
@input_schema("dct", StandardPythonParameterType({"k": 1}))
@input_schema("byt", StandardPythonParameterType(b"Qk0="))
@input_schema("dt", StandardPythonParameterType(datetime.datetime(2024, 1, 2, 3, 4, 5)))
@input_schema("arr", NumpyParameterType(np.array([[1.5, 2.5]])))
@input_schema("df", PandasParameterType(pd.DataFrame({"c": [1.5], "d": [True], "e": ["x"]})))
@input_schema("nested", NESTED)
@output_schema(NumpyParameterType(np.array([1])))
def run(i=0, f=0.0, s="", b=False, lst=None, tup=None, dct=None, byt=None, dt=None, arr=None, df=None, nested=None):
    return {
        "i": repr(i), "f": repr(f), "s": repr(s), "b": repr(b), "lst": repr(lst), "tup": repr(tup), "dct": repr(dct),
        "byt": repr(byt), "dt": repr(dt), "arr": repr(arr), "df": repr(df), "nested": repr(nested),
    }  # fmt: skip
