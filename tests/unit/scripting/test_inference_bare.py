"""Requests of the Open Inference Protocol without a JSON: the model says what their bytes are."""

from __future__ import annotations

import numpy
import pytest

from azureml_inference_server_http.scripting import inference_bare, open_inference
from azureml_inference_server_http.scripting.inference_tensors import Tensor
from azureml_inference_server_http.scripting.inputs import InputError


def read(body: bytes, *inputs: Tensor) -> open_inference.Request:
    return open_inference.decode(*inference_bare.described(inputs, bytearray(body)))


def refusal(body: bytes, *inputs: Tensor) -> str:
    with pytest.raises(InputError) as caught:
        read(body, *inputs)
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize("shape", [(-1,), (-1, 3), (2, -1), (2, 3)])
def test_the_size_of_the_body_gives_the_free_length(shape: tuple[int, ...]) -> None:
    numbers = numpy.arange(6, dtype="<f4")
    request = read(numbers.tobytes(), Tensor("x", "FP32", shape))
    assert request.inputs["x"].tolist() == numbers.reshape(shape).tolist()
    assert request.asked == open_inference.Asked(None, {}, True)


@pytest.mark.parametrize("shape", [(1,), (-1,), (-1, 1)])
def test_a_text_is_the_whole_body(shape: tuple[int, ...]) -> None:
    request = read("é\0".encode(), Tensor("x", "BYTES", shape))
    assert request.inputs["x"].reshape(-1).tolist() == ["é\0".encode()]
    assert request.inputs["x"].ndim == len(shape)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([], "the model describes 0 inputs that it needs, and the body can be that of one only"),
        ([Tensor("x", "FP32", (-1,)), Tensor("y", "FP32", (-1,))], "the model describes 2 inputs"),
        ([Tensor("x", "FP32", (-1, -1))], "the shape [-1, -1] that the model takes has 2 free lengths"),
        ([Tensor("x", "FP32", (-1, 3))], "the body must be a multiple of 12 bytes, because the model takes FP32 of"),
        ([Tensor("x", "FP32", (-1, 0))], "the body must be a multiple of 0 bytes"),
        (
            [Tensor("x", "FP64", (1,))],
            "the body must be 8 bytes, because the model takes FP64 of the shape [1]. It has 16",
        ),
        ([Tensor("x", "BYTES", (-1, 2))], "the body would be one element, but the model takes the shape [-1, 2]"),
    ],
)
def test_what_the_size_cannot_tell_is_refused(tensors: list[Tensor], reason: str) -> None:
    message = refusal(bytes(16), *tensors)
    assert message.startswith(f"Inference-Header-Content-Length is 0, but {reason}")
    assert message.endswith("Send a JSON that describes the tensors, and its length in this header.")
