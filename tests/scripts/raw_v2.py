"""Returns the tensors that it gets, or does what the parameter ``do`` of the request says."""

import time

import numpy

from azureml_inference_server_http.api import current_request, raw_v2


def init():
    pass


@raw_v2
def run(request, request_headers):
    deed = request.parameters.get("do", "")
    if deed == "fail":
        raise KeyError("no such flower")
    if deed == "sleep":
        time.sleep(request.parameters["seconds"])
    if deed == "complex":
        return numpy.zeros(1, complex)
    if deed == "describe":
        ids = [current_request().request_id, request_headers.get("X-Test", "")]
        return {"about": [request.id or "", request.model_name, request.model_version, *request.outputs, *ids]}
    if deed == "negate":
        for array in request.inputs.values():
            numpy.negative(array, out=array)
    if deed == "five":
        # The interpreter has one object for all bytes of this value.
        return numpy.frombuffer(b"\x04\x05"[1:], "u1")
    if deed == "list":
        return list(request.inputs.values())
    return request.inputs
