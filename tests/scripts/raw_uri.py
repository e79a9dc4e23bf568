"""Answers with the target as it was sent and with the Host that the script sees."""

from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


@rawhttp
def run(request):
    return AMLResponse([request.environ["RAW_URI"], request.path, request.host], 200, json_str=True)
