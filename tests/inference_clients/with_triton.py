"""Calls a server with ``tritonclient[http]``: everything that the client can ask it. Runs in the environment of `make
test-v2`; its argument is the port. Prints what it found as JSON."""

import json
import sys

import numpy
import tritonclient.http as triton

client = triton.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}")
told = {
    "live": client.is_server_live(),
    "ready": client.is_server_ready(),
    "model ready": client.is_model_ready("raw_v2"),
    "version ready": client.is_model_ready("raw_v2", "1"),
    "other ready": client.is_model_ready("other"),
    "server": client.get_server_metadata()["extensions"],
    "model": client.get_model_metadata("raw_v2")["name"],
    "errors": [],
}
ARRAYS = {
    "BOOL": numpy.array([[True, False]]),
    **{f"UINT{bits}": numpy.array([0, 200], f"uint{bits}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": numpy.array([[-100], [100]], f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": numpy.array([[0.5, -2]], f"float{bits}") for bits in (16, 32, 64)},
    "BYTES": numpy.array(["Grüße".encode(), b""], dtype=object),
}
for is_binary in (True, False):
    inputs, outputs = [], []
    # The client itself refuses FP16 in JSON.
    arrays = {name: array for name, array in ARRAYS.items() if is_binary or name != "FP16"}
    for name, array in arrays.items():
        tensor = triton.InferInput(name, array.shape, name)
        tensor.set_data_from_numpy(array, binary_data=is_binary)
        inputs.append(tensor)
        outputs.append(triton.InferRequestedOutput(name, binary_data=is_binary))
    result = client.infer("raw_v2", inputs, model_version="1", outputs=outputs, request_id="7")
    equal = []
    for name, array in arrays.items():
        found = result.as_numpy(name)
        # In JSON the client has texts where it has bytes otherwise.
        expected = array if is_binary or name != "BYTES" else numpy.array([text.decode() for text in array], object)
        same = found.tolist() == expected.tolist() and found.shape == array.shape
        if same and (found.dtype == array.dtype or name == "BYTES"):
            equal.append(name)
    told["binary" if is_binary else "json"] = equal
    told["id"] = result.get_response()["id"]
large = numpy.arange(1_000_000, dtype="float32")
tensor = triton.InferInput("x", large.shape, "FP32")
tensor.set_data_from_numpy(large)
told["large"] = bool((client.infer("raw_v2", [tensor]).as_numpy("x") == large).all())
for model, parameters in (("raw_v2", {"do": "fail"}), ("other", None)):
    try:
        client.infer(model, [tensor], parameters=parameters)
    except triton.InferenceServerException as error:
        told["errors"].append(str(error))
print(json.dumps(told))
