"""An async run() that gets the request itself."""

import json

import deeds

from azureml_inference_server_http.api.aml_request import rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse


def init():
    deeds.open_journal()


@rawhttp
async def run(request):
    order = json.loads(request.get_data())
    result = await deeds.perform_async(order)
    return AMLResponse(result, 200, json_str=order["deed"] != "stream")
