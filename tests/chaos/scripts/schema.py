"""A run() with a schema: its argument arrives converted."""

import deeds
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema

from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    deeds.open_journal()


@input_schema("order", StandardPythonParameterType({"id": "a", "deed": "echo", "amount": 0, "padding": ""}))
def run(order):
    result = deeds.perform(order)
    return AMLResponse(result, 200) if order["deed"] == "stream" else result
