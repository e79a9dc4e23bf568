"""The requests of the Open Inference Protocol as numpy arrays.

Owns the data types, the two forms of a tensor (JSON, and bytes behind the JSON), and the faults of a request, with
their remedies. Pure functions. ``inference_replies`` is the way back, ``inference_model`` knows which tensors the
script takes, and ``src/worker/convert/inference.rs`` parses the JSON. Imported only with ``--protocols score,v2``.
Runs in workers.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import numpy

from .inputs import InputError

BYTES = "BYTES"
# The types of elements; all have the byte order of the protocol. BYTES are arrays of Python objects.
DTYPES = {
    "BOOL": numpy.dtype("?"),
    "UINT8": numpy.dtype("u1"),
    "UINT16": numpy.dtype("<u2"),
    "UINT32": numpy.dtype("<u4"),
    "UINT64": numpy.dtype("<u8"),
    "INT8": numpy.dtype("i1"),
    "INT16": numpy.dtype("<i2"),
    "INT32": numpy.dtype("<i4"),
    "INT64": numpy.dtype("<i8"),
    "FP16": numpy.dtype("<f2"),
    "FP32": numpy.dtype("<f4"),
    "FP64": numpy.dtype("<f8"),
    BYTES: numpy.dtype(object),
}
_NAMES = {(dtype.kind, dtype.itemsize): name for name, dtype in DTYPES.items() if name != BYTES}
# The types that the elements of a JSON list may have, by the kind of the tensor.
_ELEMENTS: dict[str, set[type]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}, "O": {str}}
# What numpy can have. Checked before any arithmetic, because Python's own numbers have no limit.
MOST_DIMENSIONS = 64 if int(numpy.__version__.partition(".")[0]) >= 2 else 32
LARGEST = sys.maxsize
LENGTH = struct.Struct("<I")
# What a request may ask of an extension that this server does not have.
_FOREIGN = {
    "shared_memory_region": "shared memory",
    "classification": "the classification extension",
}


class Asked(NamedTuple):
    """What the reply to a request must have. ``outputs``: the tensors that the client wants, empty for all, and whether
    as bytes; None if the client does not say. ``binary``: whether those of which it does not say are bytes."""

    id: str | None
    outputs: dict[str, bool | None]
    binary: bool


class Request(NamedTuple):
    """A decoded request."""

    inputs: dict[str, Any]
    parameters: dict[str, Any]
    asked: Asked


def datatype_of(dtype: Any) -> str | None:
    """The data type for elements of this numpy type; None if there is none."""
    if dtype.kind in "USO":
        return BYTES
    return _NAMES.get((dtype.kind, dtype.itemsize))


# ---- Requests


def decode(document: Any, memory: Any) -> Request:
    """Read a request. ``document`` is its parsed JSON, ``memory`` the bytes behind it, None if the client has not sent
    Inference-Header-Content-Length. Raises InputError."""
    request = _object(document, "The inference request")
    identifier = request.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise InputError(400, f'"id" is {shown(identifier)}. It must be text.')
    parameters = _parameters(request, "The inference request")
    inputs = request.get("inputs")
    if not isinstance(inputs, list):
        raise InputError(400, 'The inference request has no "inputs". They must be a list of tensors.')
    reader = _Reader(memory)
    tensors: dict[str, Any] = {}
    for entry in inputs:
        name, array = reader.tensor(entry)
        if name in tensors:
            raise InputError(400, f"The tensor {name!r} is there twice. Send each input once.")
        tensors[name] = array
    reader.end()
    binary = _flag(parameters.pop("binary_data_output", False), "binary_data_output")
    return Request(tensors, parameters, Asked(identifier, _outputs(request), binary))


def _outputs(request: Mapping[str, Any]) -> dict[str, bool | None]:
    asked: dict[str, bool | None] = {}
    outputs = request.get("outputs", [])
    if not isinstance(outputs, list):
        raise InputError(400, '"outputs" must be a list of objects with a "name".')
    for entry in outputs:
        name = _name(_object(entry, 'Each of the "outputs"'), "outputs")
        parameters = _parameters(entry, f"The output {name!r}")
        binary = parameters.get("binary_data")
        asked[name] = None if binary is None else _flag(binary, f"binary_data of the output {name!r}")
    return asked


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(400, f"{what} must be a JSON object.")
    return value


def _name(entry: Mapping[str, Any], where: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise InputError(400, f'One of the "{where}" has no "name". Each must have one.')
    return name


def _parameters(entry: Mapping[str, Any], what: str) -> dict[str, Any]:
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InputError(400, f'{what} has "parameters" that are no JSON object.')
    for key, extension in _FOREIGN.items():
        if key in parameters:
            raise InputError(400, f'{what} has the parameter "{key}", but this server does not have {extension}.')
    return dict(parameters)


def _flag(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise InputError(400, f"{what} is {shown(value)}. It must be true or false.")
    return value


class _Reader:
    """Reads tensors, one after the other; those that are bytes follow each other in ``memory``."""

    def __init__(self, memory: Any) -> None:
        self._memory = memory
        self._length = 0 if memory is None else memoryview(memory).nbytes
        self._at = 0

    def tensor(self, entry: Any) -> tuple[str, Any]:
        """Name and array of a tensor."""
        name = _name(_object(entry, 'Each of the "inputs"'), "inputs")
        datatype, shape = _datatype(name, entry), _shape(name, entry)
        count = _count(name, shape)
        size = _parameters(entry, f"The tensor {name!r}").get("binary_data_size")
        if size is None:
            if "data" not in entry:
                raise InputError(400, f'The tensor {name!r} has neither "data" nor the parameter "binary_data_size".')
            array = from_json(name, datatype, count, shape, entry["data"])
        elif "data" in entry:
            raise InputError(400, f'The tensor {name!r} has both "data" and "binary_data_size". Send one of the two.')
        else:
            array = self._from_bytes(name, datatype, count, size)
        try:
            return name, array.reshape(shape)
        except ValueError as exc:  # numpy's limit for the number of dimensions, or for their product
            raise InputError(400, f"The tensor {name!r} cannot have the shape {shown(shape)}: {exc}.") from exc

    def _from_bytes(self, name: str, datatype: str, count: int, size: Any) -> Any:
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InputError(
                400, f"The tensor {name!r} has the binary_data_size {shown(size)}. It must be a number of bytes."
            )
        if self._memory is None:
            raise InputError(
                400,
                f"The tensor {name!r} has a binary_data_size, but the request has no Inference-Header-Content-Length. "
                "Send this header with the length of the JSON in bytes.",
            )
        left = self._length - self._at
        if size > left:
            raise InputError(
                400,
                f"The tensor {name!r} has the binary_data_size {shown(size)}, but only {left} bytes are left of the "
                "body.",
            )
        at, self._at = self._at, self._at + size
        if datatype == BYTES:
            return _read_bytes(name, memoryview(self._memory)[at : at + size], count)
        dtype = DTYPES[datatype]
        if size != count * dtype.itemsize:
            raise InputError(
                400,
                f"The tensor {name!r} has the binary_data_size {size}, but its shape needs {count * dtype.itemsize} "
                f"bytes: {count} elements of {datatype}.",
            )
        if not count:
            return numpy.empty(0, dtype)
        array = numpy.frombuffer(self._memory, dtype, count, at)
        if datatype == "BOOL" and array.view(numpy.uint8).max() > 1:
            raise InputError(400, f"The tensor {name!r} is BOOL, but has a byte that is neither 0 nor 1.")
        # Compiled code of some packages takes aligned arrays only.
        return array if array.flags.aligned else array.copy()

    def end(self) -> None:
        """Refuse bytes that no tensor has taken."""
        left = self._length - self._at
        if left:
            raise InputError(
                400, f"{left} bytes follow those of the last tensor. Each tensor must give its binary_data_size."
            )


def _datatype(name: str, entry: Mapping[str, Any]) -> str:
    datatype = entry.get("datatype")
    if datatype == "BF16":
        raise InputError(400, f"The tensor {name!r} is BF16, which numpy does not have. Send it as FP32.")
    if not isinstance(datatype, str) or datatype not in DTYPES:
        raise InputError(
            400, f"The tensor {name!r} has the datatype {shown(datatype)}. It must be one of {', '.join(DTYPES)}."
        )
    return datatype


def _shape(name: str, entry: Mapping[str, Any]) -> list[int]:
    shape = entry.get("shape")
    is_valid = isinstance(shape, list) and all(type(length) is int and length >= 0 for length in shape)
    if not is_valid:
        raise InputError(
            400, f"The tensor {name!r} has the shape {shown(shape)}. It must be a list of whole numbers, 0 or more."
        )
    return list(shape or [])


def _count(name: str, shape: list[int]) -> int:
    """The number of elements. Refuses a shape that no array can have."""
    if len(shape) > MOST_DIMENSIONS:
        raise InputError(400, f"The tensor {name!r} has {len(shape)} dimensions. It may have up to {MOST_DIMENSIONS}.")
    # Each length is checked before it is multiplied, so the product has a bounded number of digits.
    if all(length <= LARGEST for length in shape):
        count = math.prod(shape)
        if count <= LARGEST:
            return count
    raise InputError(
        400, f"The tensor {name!r} cannot have the shape {shown(shape)}: an array may have up to {LARGEST} elements."
    )


def _read_bytes(name: str, data: memoryview, count: int) -> Any:
    elements: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + LENGTH.size
        if start > len(data):
            break
        at = start + LENGTH.unpack(data[at:start])[0]
        elements.append(bytes(data[start:at]))
    if at != len(data) or len(elements) != count:
        raise InputError(
            400,
            f"The tensor {name!r} must have {count} elements of BYTES, each behind its length in 4 bytes. Its "
            f"{len(data)} bytes have {len(elements)} of them.",
        )
    return objects(elements)


def objects(elements: list[Any]) -> Any:
    """An array with one dimension, whose elements are these objects."""
    array = numpy.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def from_json(name: str, datatype: str, count: int, shape: list[int], data: Any) -> Any:
    """The elements of a tensor whose ``data`` is a JSON list: flat, or nested as the shape says."""
    if not isinstance(data, list):
        raise InputError(400, f'The tensor {name!r} has "data" that are no list.')
    elements = _flat(name, shape, data)
    if len(elements) != count:
        raise InputError(
            400,
            f"The tensor {name!r} has {len(elements)} elements, but its shape {shown(shape)} needs {count}. Correct "
            "one of them.",
        )
    wrong = _Wrong(name, datatype)
    dtype: Any = DTYPES[datatype]
    # numpy would make texts of all elements if one is a text, and numbers of those that are true or false.
    allowed = _ELEMENTS[dtype.kind]
    if not allowed.issuperset(map(type, elements)):
        raise wrong.about(next(element for element in elements if type(element) not in allowed))
    if datatype == BYTES:
        return objects([element.encode("utf-8", "surrogatepass") for element in elements])
    if dtype.kind == "f":
        return _floats(wrong, dtype, elements)
    if dtype.kind in "iu" and elements:
        limits = numpy.iinfo(dtype)
        for element in (min(elements), max(elements)):
            if not limits.min <= element <= limits.max:
                raise wrong.about(element)
    return numpy.array(elements, dtype)


def _flat(name: str, shape: list[int], data: list[Any]) -> list[Any]:
    """The elements in their order. Refuses lists within ``data`` that do not have the shape, because elements would
    change their places."""
    if list not in set(map(type, data)):
        return data
    level: list[Any] = [data]
    for length in shape:
        if any(type(inner) is not list or len(inner) != length for inner in level):
            break
        level = list(chain.from_iterable(level))
    else:
        if list not in set(map(type, level)):
            return level
    raise InputError(
        400,
        f'The tensor {name!r} has "data" that are nested otherwise than its shape {shown(shape)}. Send a flat list, or '
        "lists as in the shape.",
    )


def _floats(wrong: _Wrong, dtype: Any, elements: list[Any]) -> Any:
    # All elements become FP64 first, so that none of them changes what becomes of the others.
    try:
        wide = numpy.array(elements, numpy.float64)
    except OverflowError:
        largest = sys.float_info.max
        raise wrong.about(next(element for element in elements if abs(element) > largest)) from None
    with numpy.errstate(over="ignore"):
        converted = wide.astype(dtype)
    lost = numpy.isinf(converted) & ~numpy.isinf(wide)
    if lost.any():
        raise wrong.about(elements[int(lost.argmax())])
    return converted


_REMEDIES = {
    "b": "Send true or false.",
    "u": "Send whole numbers that this type can hold.",
    "i": "Send whole numbers that this type can hold.",
    "f": "Send numbers that this type can hold.",
    "O": "Send texts, or the bytes behind the JSON.",
}


class _Wrong(NamedTuple):
    """Makes the error about an element that a tensor cannot have."""

    name: str
    datatype: str

    def about(self, element: Any) -> InputError:
        remedy = _REMEDIES[DTYPES[self.datatype].kind]
        return InputError(
            400, f"The tensor {self.name!r} is {self.datatype}, but has the element {shown(element)}. {remedy}"
        )


def shown(value: Any) -> str:
    """A value of the client in a message, which it must not make long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number with thousands of digits (sys.get_int_max_str_digits)
        return "a number that is too long to show"
    return text if len(text) <= 40 else text[:37] + "..."


def unknown_output(name: str, known: Mapping[str, Any] | list[str]) -> InputError:
    """The error about an output that the client asks for."""
    return InputError(400, f"There is no output {name!r}. The outputs are {', '.join(map(repr, known)) or 'none'}.")
