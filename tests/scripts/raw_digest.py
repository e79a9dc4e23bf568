"""Answers with a digest of the body as it arrived."""

import hashlib

from azureml_inference_server_http.api.aml_request import rawhttp


def init():
    pass


@rawhttp
def run(request):
    return hashlib.sha256(request.get_data()).hexdigest()
