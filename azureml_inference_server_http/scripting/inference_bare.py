"""Requests that are the bytes of a tensor and nothing else, by the extension for binary tensors of the Open Inference
Protocol: their JSON has the length 0, and the model says what they are.

Owns the description that such a request leaves out. Pure functions. Imported only with ``--protocols score,v2``. Runs
in workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .inference_tensors import FREE, Tensor
from .inputs import InputError
from .open_inference import BYTES, DTYPES, LENGTH

_REMEDY = "Send a JSON that describes the tensors, and its length in this header."


def described(inputs: Sequence[Tensor], memory: Any) -> tuple[dict[str, Any], Any]:
    """The request with this body, for ``open_inference.decode``. ``inputs``: the tensors that the model needs. The
    reply has bytes too, as the extension says. Raises InputError."""
    if len(inputs) != 1:
        raise _refusal(f"the model describes {len(inputs)} inputs that it needs, and the body can be that of one only")
    [tensor] = inputs
    size = memoryview(memory).nbytes
    if tensor.datatype == BYTES:
        # The whole body is one element, which in a request with JSON has its length before it.
        if any(length not in (1, FREE) for length in tensor.shape):
            raise _refusal(f"the body would be one element, but the model takes the shape {list(tensor.shape)}")
        shape = [1] * len(tensor.shape)
        memory = bytearray(LENGTH.pack(size) + bytes(memory))
    else:
        shape = _shape(tensor, size)
    parameters = {"binary_data_size": memoryview(memory).nbytes}
    entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "parameters": parameters}
    return {"inputs": [entry], "parameters": {"binary_data_output": True}}, memory


def _shape(tensor: Tensor, size: int) -> list[int]:
    """The shape of a tensor with so many bytes."""
    fixed = [length for length in tensor.shape if length != FREE]
    step = math.prod(fixed) * DTYPES[tensor.datatype].itemsize
    free = len(tensor.shape) - len(fixed)
    if free > 1:
        raise _refusal(f"the shape {list(tensor.shape)} that the model takes has {free} free lengths")
    count = size // step if step else 0
    if count * step != size or (not free and count != 1):
        wanted = f"{step} bytes" if not free else f"a multiple of {step} bytes"
        raise _refusal(
            f"the body must be {wanted}, because the model takes {tensor.datatype} of the shape {list(tensor.shape)}. "
            f"It has {size}"
        )
    return [count if length == FREE else length for length in tensor.shape]


def _refusal(reason: str) -> InputError:
    return InputError(400, f"Inference-Header-Content-Length is 0, but {reason}. {_REMEDY}")
