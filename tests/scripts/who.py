"""Answers with what a script sees of the client."""

from azureml_inference_server_http.api.aml_request import rawhttp


def init():
    pass


@rawhttp
def run(request):
    return [request.remote_addr, request.scheme, request.environ["REMOTE_PORT"], request.url]
