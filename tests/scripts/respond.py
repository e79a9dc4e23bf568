"""Answers with the HTTP response that the Python expression it got makes."""

import flask  # noqa: F401

from azureml_inference_server_http.api.aml_response import AMLResponse  # noqa: F401


def init():
    pass


def run(data):
    return eval(data)
