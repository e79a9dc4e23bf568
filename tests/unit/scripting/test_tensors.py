"""Requests and replies of the Open Inference Protocol, and numpy arrays."""

from __future__ import annotations

import struct
import tracemalloc

import numpy
import pytest

from azureml_inference_server_http.scripting import inference_replies, open_inference
from azureml_inference_server_http.scripting.inputs import InputError
from azureml_inference_server_http.scripting.open_inference import Asked
from azureml_inference_server_http.scripting.outputs import ResultError

NUMBERS = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-(2**7), 2**7 - 1],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [0.5, -2.0],
    "FP32": [1.5, 2.0**-30],
    "FP64": [0.1, 1e300],
}
ALL = Asked(None, {}, False)


def tensor(datatype="FP32", shape=(2,), name="x", **more):
    return {"name": name, "datatype": datatype, "shape": list(shape), **more}


def as_bytes(size, **more):
    return tensor(parameters={"binary_data_size": size}, **more)


def decoded(*tensors, memory=None, **more):
    return open_inference.decode({"inputs": list(tensors), **more}, memory)


def refusal(*tensors, memory=None, **more):
    with pytest.raises(InputError) as caught:
        decoded(*tensors, memory=memory, **more)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize("datatype", NUMBERS)
def test_every_type_of_numbers_goes_both_ways_in_both_forms(datatype):
    elements = NUMBERS[datatype]
    array = numpy.array(elements, open_inference.DTYPES[datatype])
    in_json = decoded(tensor(datatype, data=elements)).inputs["x"]
    memory = bytearray(array.tobytes())
    in_bytes = decoded(as_bytes(len(memory), datatype=datatype), memory=memory).inputs["x"]
    for found in (in_json, in_bytes):
        assert found.dtype == array.dtype
        assert found.tolist() == elements
    reply = inference_replies.encode({"y": array}, ALL, "m", "1")
    assert reply.document["outputs"] == [{"name": "y", "datatype": datatype, "shape": [2], "data": elements}]
    reply = inference_replies.encode({"y": array}, Asked(None, {}, True), "m", "1")
    described = {"name": "y", "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": array.nbytes}}
    assert reply.document["outputs"] == [described]
    assert b"".join(reply.tensors) == array.tobytes()


def test_texts_go_both_ways_in_both_forms():
    texts = ["", "Grüße", "a"]
    coded = [text.encode() for text in texts]
    memory = b"".join(struct.pack("<I", len(text)) + text for text in coded)
    in_json = decoded(tensor("BYTES", (3,), data=texts)).inputs["x"]
    in_bytes = decoded(as_bytes(len(memory), datatype="BYTES", shape=(3,)), memory=memory).inputs["x"]
    assert in_json.tolist() == in_bytes.tolist() == coded
    for array in (in_json, numpy.array(texts), numpy.array(texts, dtype=object)):
        plain = inference_replies.encode({"y": array}, ALL, "m", "1").document["outputs"]
        assert plain == [{"name": "y", "datatype": "BYTES", "shape": [3], "data": texts}]
        reply = inference_replies.encode({"y": array}, Asked(None, {}, True), "m", "1")
        assert b"".join(reply.tensors) == memory


def test_the_example_of_the_specification_is_read():
    request = open_inference.decode(
        {
            "id": "42",
            "parameters": {"weight": 2},
            "inputs": [
                tensor("UINT32", (2, 2), "input0", data=[1, 2, 3, 4]),
                tensor("BOOL", (1,), "input1", data=[True]),
            ],
            "outputs": [{"name": "output0"}],
        },
        None,
    )
    assert request.inputs["input0"].tolist() == [[1, 2], [3, 4]]
    assert request.inputs["input1"].tolist() == [True]
    assert request.parameters == {"weight": 2}
    assert request.asked == Asked("42", {"output0": None}, False)
    reply = inference_replies.encode(
        {"output0": numpy.ones((3, 2), "f4"), "other": numpy.ones(1)}, request.asked, "m", "1"
    )
    assert reply.document == {
        "model_name": "m",
        "model_version": "1",
        "id": "42",
        "outputs": [{"name": "output0", "datatype": "FP32", "shape": [3, 2], "data": [1.0] * 6}],
    }


def test_nested_and_empty_data_have_their_shape():
    request = decoded(
        tensor("INT64", (2, 2), "nested", data=[[1, 2], [3, 4]]),
        tensor("FP32", (0, 3), "empty", data=[]),
        tensor("FP64", (), "scalar", data=[1]),
        tensor("BYTES", (1, 2), "texts", data=[["a", "b"]]),
        as_bytes(0, shape=(2, 0), name="none"),
        memory=b"",
    )
    shapes = {name: array.shape for name, array in request.inputs.items()}
    assert shapes == {"nested": (2, 2), "empty": (0, 3), "scalar": (), "texts": (1, 2), "none": (2, 0)}


def test_tensors_in_bytes_share_the_memory_and_may_be_changed():
    memory = bytearray(numpy.arange(4, dtype="<f4").tobytes() + b"\x01")
    request = decoded(as_bytes(16, shape=(4,)), as_bytes(1, shape=(1,), datatype="BOOL", name="b"), memory=memory)
    array = request.inputs["x"]
    array += 1
    assert numpy.frombuffer(memory, "<f4", 4).tolist() == [1, 2, 3, 4]
    assert request.inputs["b"].tolist() == [True]


def test_tensors_that_are_not_aligned_are_copied():
    request = decoded(
        as_bytes(1, shape=(1,), datatype="UINT8", name="first"), as_bytes(8), memory=bytearray(b"\x01" + bytes(8))
    )
    assert request.inputs["x"].flags.aligned
    assert request.inputs["x"].flags.writeable


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], 'Each of the "inputs" must be a JSON object.'),
        ({}, 'One of the "inputs" has no "name". Each must have one.'),
        (tensor("BF16", data=[1, 2]), "The tensor 'x' is BF16, which numpy does not have. Send it as FP32."),
        (tensor("FLOAT", data=[1, 2]), "The tensor 'x' has the datatype 'FLOAT'. It must be one of BOOL, UINT8,"),
        (
            tensor(shape=(-1,), data=[1]),
            "The tensor 'x' has the shape [-1]. It must be a list of whole numbers, 0 or more.",
        ),
        ({**tensor(), "shape": None}, "The tensor 'x' has the shape None."),
        (tensor(shape=(1.0,), data=[1]), "The tensor 'x' has the shape [1.0]."),
        (tensor(shape=(True,), data=[1]), "The tensor 'x' has the shape [True]."),
        (tensor(shape=(3,), data=[1, 2]), "The tensor 'x' has 2 elements, but its shape [3] needs 3."),
        (
            tensor(shape=(2, 2), data=[[1, 2], [3]]),
            "The tensor 'x' has \"data\" that are nested otherwise than its shape",
        ),
        (tensor(shape=(2, 3), data=[[1, 2], [3, 4], [5, 6]]), "The tensor 'x' has \"data\" that are nested otherwise"),
        (tensor(shape=(2,), data=[[1, 2]]), "The tensor 'x' has \"data\" that are nested otherwise"),
        (tensor(shape=(1, 2), data=[[1, [2]]]), "The tensor 'x' has \"data\" that are nested otherwise"),
        (tensor(shape=(2,), data=[1, [2]]), "The tensor 'x' has \"data\" that are nested otherwise"),
        (tensor(data=1), "The tensor 'x' has \"data\" that are no list."),
        (tensor(), 'The tensor \'x\' has neither "data" nor the parameter "binary_data_size".'),
        (tensor(parameters=[], data=[1, 2]), "The tensor 'x' has \"parameters\" that are no JSON object."),
        (as_bytes(8, data=[1, 2]), 'The tensor \'x\' has both "data" and "binary_data_size".'),
        (
            tensor(parameters={"shared_memory_region": "r"}),
            "The tensor 'x' has the parameter \"shared_memory_region\", but this server does not have shared memory.",
        ),
        (
            tensor(data=[1, "a"]),
            "The tensor 'x' is FP32, but has the element 'a'. Send numbers that this type can hold.",
        ),
        (tensor(data=["a", "b"]), "The tensor 'x' is FP32, but has the element 'a'."),
        (tensor(data=[1, None]), "The tensor 'x' is FP32, but has the element None."),
        (tensor(data=[1, 1e300]), "The tensor 'x' is FP32, but has the element 1e+300."),
        (tensor("FP64", data=[1, 10**400]), "The tensor 'x' is FP64, but has the element 1000"),
        (tensor("INT8", data=[1, 128]), "The tensor 'x' is INT8, but has the element 128. Send whole numbers"),
        (tensor("UINT8", data=[1, -1]), "The tensor 'x' is UINT8, but has the element -1."),
        (tensor("INT64", data=[1, 2**64]), "The tensor 'x' is INT64, but has the element 18446744073709551616."),
        (tensor("INT32", data=[1, 1.5]), "The tensor 'x' is INT32, but has the element 1.5."),
        (tensor("BOOL", data=[0, 1]), "The tensor 'x' is BOOL, but has the element 0. Send true or false."),
        (tensor("BYTES", data=["a", 1]), "The tensor 'x' is BYTES, but has the element 1. Send texts,"),
        (tensor("FP16", data=[2**70, 1.0]), "The tensor 'x' is FP16, but has the element 1180591620717411303424."),
        (tensor("FP32", data=[2**70, 1e300]), "The tensor 'x' is FP32, but has the element 1e+300."),
        (tensor("FP64", data=[1.0, -(10**5000)]), "The tensor 'x' is FP64, but has the element a number that is too"),
        (tensor(data=[True, 1.5]), "The tensor 'x' is FP32, but has the element True."),
        (tensor(data=[True, True]), "The tensor 'x' is FP32, but has the element True."),
        (tensor("INT8", data=[1, False]), "The tensor 'x' is INT8, but has the element False."),
        (tensor(shape=(1,) * 70, data=[1]), "The tensor 'x' has 70 dimensions. It may have up to "),
        (tensor(shape=(0, 10**30), data=[]), "The tensor 'x' cannot have the shape [0, 1000"),
        (as_bytes(8), "The tensor 'x' has a binary_data_size, but the request has no Inference-Header-Content-Length."),
    ],
)
def test_a_wrong_tensor_is_named_with_the_remedy(entry, message):
    assert refusal(entry).startswith(message)


@pytest.mark.parametrize(
    "shape", [[9 * 10**18] * 80_000, [10**18] * 30, [10**4000, 10**4000], [10**5000], [0, 10**5000], [2**62, 4]]
)
@pytest.mark.parametrize("form", [{"data": [1]}, {"parameters": {"binary_data_size": 4}}])
def test_a_shape_that_no_array_can_have_is_refused_before_it_is_multiplied(shape, form):
    message = refusal(tensor(shape=shape, **form), memory=b"1234" if "parameters" in form else None)
    assert message.startswith(("The tensor 'x' has 80000 dimensions.", "The tensor 'x' cannot have the shape "))
    assert len(message) < 200


def test_every_number_of_a_message_may_be_too_long_to_write():
    number = 10**5000
    assert "binary_data_size a number that is too long to show" in refusal(as_bytes(number), memory=b"")
    assert refusal(tensor(data=[1, 2]), id=number).startswith('"id" is a number that is too long to show.')
    flags = {"binary_data_output": number}
    assert refusal(tensor(data=[1, 2]), parameters=flags).startswith("binary_data_output is a number that is too long")
    assert refusal(tensor(number, data=[1, 2])).startswith("The tensor 'x' has the datatype a number that is too long")
    assert refusal(tensor(shape=[-number], data=[1])).startswith("The tensor 'x' has the shape a number that is too")


@pytest.mark.parametrize("datatype", ["BYTES", "FP32"])
def test_a_long_text_does_not_give_its_memory_to_its_neighbours(datatype):
    elements = ["x" * 1_000_000, *[""] * 1000]
    entry = tensor(datatype, (len(elements),), data=elements)
    tracemalloc.start()
    try:
        if datatype == "BYTES":
            assert decoded(entry).inputs["x"].tolist() == [element.encode() for element in elements]
        else:
            assert refusal(entry).startswith("The tensor 'x' is FP32, but has the element 'xxx")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 20_000_000


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (as_bytes("8"), "The tensor 'x' has the binary_data_size '8'. It must be a number of bytes."),
        (as_bytes(9), "The tensor 'x' has the binary_data_size 9, but only 8 bytes are left of the body."),
        (as_bytes(4), "The tensor 'x' has the binary_data_size 4, but its shape needs 8 bytes: 2 elements of FP32."),
        (
            as_bytes(4, shape=(1,)),
            "4 bytes follow those of the last tensor. Each tensor must give its binary_data_size.",
        ),
        (as_bytes(8, datatype="BOOL", shape=(8,)), "The tensor 'x' is BOOL, but has a byte that is neither 0 nor 1."),
        (
            as_bytes(8, datatype="BYTES"),
            "The tensor 'x' must have 2 elements of BYTES, each behind its length in 4 bytes.",
        ),
        (tensor(data=[1, 2]), "8 bytes follow those of the last tensor."),
    ],
)
def test_wrong_bytes_are_named_with_the_remedy(entry, message):
    assert refusal(entry, memory=b"\x02" + bytes(7)).startswith(message)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ([], "The inference request must be a JSON object."),
        ({}, 'The inference request has no "inputs". They must be a list of tensors.'),
        ({"inputs": [], "id": 42}, '"id" is 42. It must be text.'),
        ({"inputs": [], "parameters": []}, 'The inference request has "parameters" that are no JSON object.'),
        ({"inputs": [], "parameters": {"binary_data_output": 1}}, "binary_data_output is 1. It must be true or false."),
        ({"inputs": [tensor(data=[1, 2])] * 2}, "The tensor 'x' is there twice. Send each input once."),
        ({"inputs": [], "outputs": {}}, '"outputs" must be a list of objects with a "name".'),
        ({"inputs": [], "outputs": [{}]}, 'One of the "outputs" has no "name". Each must have one.'),
        (
            {"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]},
            "binary_data of the output 'y' is 'yes'. It must be true or false.",
        ),
        (
            {"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
            "The output 'y' has the parameter \"classification\", but this server does not have the classification",
        ),
    ],
)
def test_a_wrong_request_is_explained(request_, message):
    with pytest.raises(InputError) as caught:
        open_inference.decode(request_, None)
    assert caught.value.message.startswith(message)


def test_outputs_are_chosen_and_each_has_the_form_that_the_client_wants():
    tensors = {"a": numpy.zeros(1), "b": numpy.ones(1, "u1"), "c": numpy.zeros(0)}
    request = decoded(
        parameters={"binary_data_output": True},
        outputs=[{"name": "b"}, {"name": "a", "parameters": {"binary_data": False}}, {"name": "c"}],
    )
    assert request.parameters == {}
    reply = inference_replies.encode(tensors, request.asked, "m", "1")
    assert reply.document["outputs"] == [
        {"name": "b", "datatype": "UINT8", "shape": [1], "parameters": {"binary_data_size": 1}},
        {"name": "a", "datatype": "FP64", "shape": [1], "data": [0.0]},
        {"name": "c", "datatype": "FP64", "shape": [0], "parameters": {"binary_data_size": 0}},
    ]
    assert b"".join(reply.tensors) == b"\x01"
    with pytest.raises(InputError, match="There is no output 'd'"):
        inference_replies.encode(tensors, Asked(None, {"d": None}, False), "m", "1")


def test_any_order_of_bytes_and_elements_is_sent_in_that_of_the_protocol():
    array = numpy.arange(6, dtype=">i4").reshape(2, 3).T
    reply = inference_replies.encode({"y": array}, Asked(None, {}, True), "m", "1")
    assert reply.document["outputs"][0]["shape"] == [3, 2]
    assert numpy.frombuffer(b"".join(reply.tensors), "<i4").tolist() == [0, 3, 1, 4, 2, 5]
    assert inference_replies.encode({"y": array}, ALL, "m", "1").document["outputs"][0]["data"] == [0, 3, 1, 4, 2, 5]


def test_what_cannot_be_sent_is_named():
    with pytest.raises(ResultError, match="the tensor 'y' of the numpy type complex128"):
        inference_replies.encode({"y": numpy.zeros(1, complex)}, ALL, "m", "1")
    with pytest.raises(InputError, match="The output 'y' has bytes that are not UTF-8 text"):
        inference_replies.encode({"y": numpy.array([b"\xff"], object)}, ALL, "m", "1")
