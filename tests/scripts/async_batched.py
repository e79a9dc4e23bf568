"""An async run() that takes the texts of several requests."""

import asyncio

from azureml_inference_server_http.api import batched


def init():
    pass


@batched(max_size=4, max_wait_ms=50)
async def run(texts):
    print(f"run() got {len(texts)} rows")
    if "hang" in texts:
        await asyncio.sleep(3600)
    return [KeyError(text) if text == "raise" else text.upper() for text in texts]
