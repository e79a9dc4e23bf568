"""Describes its input and output by samples; an empty name is an error."""

from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init():
    pass


@input_schema("rows", StandardPythonParameterType([[1.5, 2.0]]))
@input_schema("name", StandardPythonParameterType("it's \\ a <b>name</b>"))
@output_schema(StandardPythonParameterType({"sum": 3.5}))
def run(rows, name):
    return {"sum": sum(rows[0]), "name": name, "share": 1 / len(name)}
