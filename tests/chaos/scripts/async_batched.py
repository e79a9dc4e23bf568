"""An async run() that takes the texts of several requests, and whose calls run at once."""

import asyncio
import json

import deeds

from azureml_inference_server_http.api import batched


async def init():
    deeds.open_journal()


async def result(order):
    try:
        return await deeds.do_async(order)
    except ValueError as exc:
        return exc


@batched(max_size=8, max_wait_ms=2)
async def run(texts):
    orders = [json.loads(text) for text in texts]
    with deeds.noted(*orders):
        return await asyncio.gather(*map(result, orders))
