"""A reply in a hundred parts of a kibibyte, made one after the other."""

from azureml.contrib.services.aml_response import AMLResponse

PARTS = 100
PART = b"x" * 1023 + b"\n"


def init():
    pass


def parts():
    for _ in range(PARTS):
        yield PART


def run(data):
    return AMLResponse(parts(), 200)
