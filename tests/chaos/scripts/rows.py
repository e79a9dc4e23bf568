"""A run() with a schema that makes a frame: with --max_batch_size, one call answers several requests.

It must not import Flask, because its calls would not be joined.
"""

import deeds
import pandas as pd
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.schema_decorators import input_schema

SAMPLE = pd.DataFrame({"id": ["a"], "deed": ["echo"], "amount": [0], "padding": [""]})


def init():
    deeds.open_journal()


@input_schema("data", PandasParameterType(SAMPLE))
def run(data):
    orders = data.to_dict(orient="records")
    with deeds.noted(*orders):
        return [deeds.do(order) for order in orders]
