"""Answers with the length of the body as it arrived."""

from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    pass


@rawhttp
def run(request):
    return AMLResponse(len(request.get_data()), 200, json_str=True)
