"""A raw async script: waits for as many calls as its query says, then answers with its own request."""

import asyncio

from azureml.contrib.services.aml_request import rawhttp
from flask import g, request

from azureml_inference_server_http.api.aml_response import AMLResponse

waiting = []


def init():
    pass


@rawhttp
async def run(raw):
    if "stream" in raw.args:
        return AMLResponse(parts(), 201, {"x-kind": "stream"})
    waiting.append(raw.path)
    g.mine = raw.args["name"]
    while len(waiting) < int(raw.args["others"]):
        await asyncio.sleep(0.001)
    return AMLResponse({"seen": [request.args["name"], g.mine, raw.get_data(as_text=True)]}, 200, json_str=True)


async def parts():
    yield request.args["stream"]
    await asyncio.sleep(0)
    yield b"|" + request.method.encode()
