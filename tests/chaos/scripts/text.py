"""A plain run() that gets JSON text."""

import json

import deeds

from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    deeds.open_journal()


def run(data):
    order = json.loads(data)
    result = deeds.perform(order)
    return AMLResponse(result, 200) if order["deed"] == "stream" else result
