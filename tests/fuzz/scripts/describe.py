"""Describes the value that a JSON body held, which no conversion has touched."""

import os
import sys

from inference_schema.parameter_types.abstract_parameter_type import AbstractParameterType
from inference_schema.schema_decorators import input_schema

sys.path.append(os.path.dirname(__file__))

import fuzz_shapes


class Anything(AbstractParameterType):
    def __init__(self):
        super().__init__(None)

    def deserialize_input(self, input_data):
        return input_data

    def input_to_swagger(self):
        return {"type": "object", "example": {}}


def init():
    pass


@input_schema("document", Anything())
def run(document):
    return fuzz_shapes.describe(document)
