"""A stream that fails before its first part."""

from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


def parts():
    raise ValueError("no first part")
    yield "never"


def run(data):
    return AMLResponse(parts(), 200)
