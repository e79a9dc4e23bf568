"""Classifier behind stacked schema decorators, a method parameter with a default, and JSON text as
the result."""

import json

import numpy as np
import pandas as pd
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema
from sklearn.tree import DecisionTreeClassifier

data_sample = pd.DataFrame({"a": pd.Series([0.0], dtype="float64"), "b": pd.Series([1.0], dtype="float64")})
method_sample = StandardPythonParameterType("predict")
result_sample = NumpyParameterType(np.array([0]))


def init():
    global model
    frame = pd.DataFrame({"a": [0.0, 5.0], "b": [0.0, 5.0]})
    model = DecisionTreeClassifier(random_state=0).fit(frame, [0, 1])


@input_schema("method", method_sample, convert_to_provided_type=False)
@input_schema("data", PandasParameterType(data_sample))
@output_schema(result_sample)
def run(data, method="predict"):
    try:
        if method == "predict_proba":
            result = model.predict_proba(data)
        elif method == "predict":
            result = model.predict(data)
        else:
            raise Exception(f"Invalid predict method argument received ({method})")
        if isinstance(result, pd.DataFrame):
            result = result.values
        return json.dumps({"result": result.tolist()})
    except Exception as e:
        return json.dumps({"error": str(e)})
