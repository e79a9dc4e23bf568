"""The replies of the Open Inference Protocol, from numpy arrays.

Owns the form of a reply, and which tensors are in it: those that the client asks for, as JSON or as bytes behind the
JSON. Pure functions. ``inference_results`` makes arrays of a result, and ``src/worker/convert/inference.rs`` writes the
JSON. Runs in workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy

from .inputs import InputError
from .open_inference import BYTES, DTYPES, LENGTH, Asked, datatype_of, unknown_output
from .outputs import ResultError


class Encoded(NamedTuple):
    """A reply: its JSON, and the tensors that follow it as bytes."""

    document: dict[str, Any]
    tensors: list[Any]


def encode(tensors: Mapping[str, Any], asked: Asked, model: str, version: str) -> Encoded:
    """Make the reply with these tensors, which are arrays. Raises InputError if the client asks for one that is not
    there, and ResultError if one cannot be sent."""
    for name in asked.outputs:
        if name not in tensors:
            raise unknown_output(name, tensors)
    document: dict[str, Any] = {"model_name": model, "model_version": version}
    if asked.id is not None:
        document["id"] = asked.id
    outputs: list[dict[str, Any]] = []
    follow: list[Any] = []
    for name in asked.outputs or tensors:
        binary = asked.outputs.get(name)
        outputs.append(_output(name, tensors[name], asked.binary if binary is None else binary, follow))
    document["outputs"] = outputs
    return Encoded(document, follow)


def _output(name: str, array: Any, binary: bool, follow: list[Any]) -> dict[str, Any]:
    datatype = datatype_of(array.dtype)
    if datatype is None:
        raise ResultError(
            f"run() returned the tensor {name!r} of the numpy type {array.dtype}, which the Open Inference Protocol "
            "does not have. Convert it, for example with .astype(numpy.float32)."
        )
    output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    if datatype == BYTES:
        elements = [to_bytes(element) for element in array.reshape(-1).tolist()]
        if binary:
            data: Any = b"".join(part for element in elements for part in (LENGTH.pack(len(element)), element))
        else:
            output["data"] = [_text(name, element) for element in elements]
    elif binary:
        data = numpy.ascontiguousarray(array, DTYPES[datatype])
    else:
        output["data"] = array.reshape(-1).tolist()
    if binary:
        size = len(data) if datatype == BYTES else data.nbytes
        output["parameters"] = {"binary_data_size": size}
        if size:
            follow.append(data)
    return output


def to_bytes(element: Any) -> bytes:
    """An element of a BYTES tensor."""
    if isinstance(element, (bytes, bytearray)):
        return bytes(element)
    return str(element).encode("utf-8", "surrogatepass")


def _text(name: str, element: bytes) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError:
        raise InputError(
            400,
            f"The output {name!r} has bytes that are not UTF-8 text, so JSON cannot have them. Ask for it with the "
            'parameter "binary_data": true.',
        ) from None
