"""An async run() that gets JSON text, and whose calls run at once."""

import json

import deeds

from azureml_inference_server_http.api.aml_response import AMLResponse


async def init():
    deeds.open_journal()


async def run(data):
    order = json.loads(data)
    result = await deeds.perform_async(order)
    return AMLResponse(result, 200) if order["deed"] == "stream" else result
