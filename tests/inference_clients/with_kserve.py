"""Calls a server with the client of ``kserve``. Runs in the environment of `make test-v2`; its argument is the port.
Prints what it found as JSON."""

import asyncio
import json
import sys

import numpy
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def main() -> None:
    url = f"http://127.0.0.1:{sys.argv[1]}"
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    told = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model ready": await client.is_model_ready(url, "raw_v2"),
        "other ready": await client.is_model_ready(url, "other"),
    }
    arrays = {
        "FP32": numpy.array([[0.5, 2]], "float32"),
        "INT64": numpy.array([1, 2]),
        "FP16": numpy.array([1], "float16"),
    }
    for is_binary in (True, False):
        inputs, outputs = [], []
        for name, array in arrays.items():
            if name == "FP16" and not is_binary:
                continue
            tensor = InferInput(name, list(array.shape), name)
            tensor.set_data_from_numpy(array, binary_data=is_binary)
            inputs.append(tensor)
            outputs.append(RequestedOutput(name, {"binary_data": is_binary}))
        request = InferRequest("raw_v2", inputs, request_id="7", request_outputs=outputs)
        response = await client.infer(url, request, "raw_v2")
        found = {output.name: output.as_numpy() for output in response.outputs}
        equal = [
            name for name, array in found.items() if (array == arrays[name]).all() and array.shape == arrays[name].shape
        ]
        told["binary" if is_binary else "json"] = equal
        told["id"] = response.id
    try:
        await client.infer(url, {"inputs": []}, "other")
    except Exception as error:
        told["error"] = str(error)
    await client.close()
    print(json.dumps(told))


asyncio.run(main())
