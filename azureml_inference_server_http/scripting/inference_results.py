"""The results of run() as the tensors of a reply of the Open Inference Protocol.

Owns the names and types of a result's tensors: those of @output_schema, or else those that the result itself has
(docs/open-inference.md). Pure functions. Runs in workers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy

from .inference_tensors import Tensor
from .open_inference import BYTES, DTYPES, datatype_of
from .outputs import to_json

# The name of a result without names.
OUTPUT = "output"


def tensors(result: Any, known: Sequence[Tensor]) -> dict[str, Any]:
    """The tensors of a result, as arrays by name. ``known`` are those that @output_schema describes. A result that does
    not have them gets its own, because /score takes such a result too."""
    values = _by_name(result)
    if [tensor.name for tensor in known] == [OUTPUT]:
        values = {OUTPUT: result}
    elif known and all(tensor.name in values for tensor in known):
        values = {tensor.name: values[tensor.name] for tensor in known}
    described = {tensor.name: tensor for tensor in known}
    return {name: _array(value, described.get(name)) for name, value in values.items()}


def _by_name(result: Any) -> dict[str, Any]:
    if result is None:
        return {}
    if isinstance(result, dict) and result and all(isinstance(name, str) for name in result):
        return result
    frame_type: Any = getattr(sys.modules.get("pandas"), "DataFrame", None)
    if frame_type is not None and isinstance(result, frame_type):
        return {str(name): result[name] for name in result.columns}
    if isinstance(result, (list, tuple)) and any(hasattr(value, "__array__") and numpy.ndim(value) for value in result):
        return {f"{OUTPUT}_{index}": value for index, value in enumerate(result)}
    return {OUTPUT: result}


def _array(value: Any, tensor: Tensor | None) -> Any:
    if tensor is not None and tensor.is_json:
        return _json(value)
    array = _found(value)
    if array is None:
        return _json(value)
    array = array.reshape(1) if array.ndim == 0 else array
    if array.dtype.kind in "mM":
        array = numpy.array(
            [None if text == "NaT" else text for text in array.astype(str).reshape(-1)], object
        ).reshape(array.shape)
    if tensor is None or tensor.datatype == datatype_of(array.dtype):
        return array
    dtype = DTYPES[tensor.datatype]
    is_number = array.dtype.kind in "biuf" and dtype.kind in "biuf"
    return array.astype(dtype) if is_number and tensor.datatype != BYTES else array


def _found(value: Any) -> Any:
    """The value as an array; None if only JSON can have it."""
    if isinstance(value, (str, bytes)):
        array = numpy.empty(1, dtype=object)
        array[0] = value
        return array
    if isinstance(value, int) and not isinstance(value, bool):
        return numpy.array([value]) if -(2**63) <= value < 2**64 else None
    if isinstance(value, (bool, float)) or hasattr(value, "__array__"):
        return _of_array(numpy.asarray(value))
    if not isinstance(value, (list, tuple)) or not value:
        return None
    try:
        array = numpy.asarray(value)
    except (ValueError, OverflowError):
        return None
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.kind == "U" or array.dtype.kind == "S":
        # numpy makes texts of numbers beside texts.
        plain = numpy.array(value, dtype=object)
        return plain if all(isinstance(element, (str, bytes)) for element in plain.reshape(-1)) else None
    return None


def _of_array(array: Any) -> Any:
    """An array whose elements are objects is sent as texts, if they are texts."""
    if array.dtype.kind == "O":
        elements = array.reshape(-1).tolist()
        if not all(isinstance(element, (str, bytes, bytearray)) for element in elements):
            texts = [element if isinstance(element, (str, bytes)) else to_json(element) for element in elements]
            array = numpy.array([*texts, None], dtype=object)[:-1].reshape(array.shape)
    return array


def _json(value: Any) -> Any:
    array = numpy.empty(1, dtype=object)
    array[0] = to_json(value)
    return array
