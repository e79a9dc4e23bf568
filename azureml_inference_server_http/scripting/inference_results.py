"""The results of run() as the tensors of a reply of the Open Inference Protocol.

Owns the names and types of a result's tensors: those of @output_schema, or else those that the result itself has
(docs/open-inference.md). Pure functions, but for a hint in the log. Runs in workers.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

import numpy

from .inference_tensors import Tensor
from .open_inference import DTYPES, MOST_DIMENSIONS, datatype_of, objects
from .outputs import to_json

# The name of a result without names.
OUTPUT = "output"

_logger = logging.getLogger("azmlinfsrv")


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
    if isinstance(result, dict) and all(isinstance(name, str) for name in result):
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
        # A time that is missing is null, as every other value that is missing.
        texts = [to_json(None) if text == "NaT" else text for text in array.astype(str).reshape(-1)]
        array = objects(texts).reshape(array.shape)
    own = datatype_of(array.dtype)
    if tensor is None or tensor.datatype == own:
        return array
    converted = _converted(array, DTYPES[tensor.datatype])
    if converted is None:
        _hint(tensor.name, tensor.datatype, own or str(array.dtype))
        return array
    return converted


@cache  # so that each is logged once
def _hint(name: str, declared: str, own: str) -> None:
    _logger.warning(
        "run() returned values for the output %r that its datatype %s, by the sample of @output_schema, cannot have, "
        "so the server sends them as %s. Correct the sample, or convert the result in run().",
        name,
        declared,
        own,
    )


def _converted(array: Any, dtype: Any) -> Any:
    """The array with this type; None if a number would become another one. Whole numbers must be in the range of the
    type. Floats become no whole numbers, and are rounded to the precision of a smaller type only within its range."""
    source, target = array.dtype.kind, dtype.kind
    if source not in "biuf" or target not in "biuf" or (source == "f" and target != "f"):
        return None
    with numpy.errstate(all="ignore"):
        converted = array.astype(dtype)
        if source == "f":
            is_near = numpy.abs(converted - array) <= numpy.finfo(dtype).eps * numpy.abs(array)
            return converted if (is_near | (converted == array) | numpy.isnan(array)).all() else None
    if not array.size:
        return converted
    if target == "b":
        least, most = 0, 1
    elif target == "f":
        # A float has all whole numbers up to this one.
        most = 2 ** (numpy.finfo(dtype).nmant + 1)
        least = -most
    else:
        least, most = int(numpy.iinfo(dtype).min), int(numpy.iinfo(dtype).max)
    return converted if least <= int(array.min()) and int(array.max()) <= most else None


def _found(value: Any) -> Any:
    """The value as an array; None if only JSON can have it."""
    if isinstance(value, (str, bytes)):
        return objects([value])
    if isinstance(value, int) and not isinstance(value, bool):
        return numpy.array([value]) if -(2**63) <= value < 2**64 else None
    if isinstance(value, (bool, float)) or hasattr(value, "__array__"):
        return _of_array(numpy.asarray(value))
    if not isinstance(value, (list, tuple)) or not value:
        return None
    types = _types(value)
    has_texts = any(issubclass(kind, (str, bytes)) for kind in types)
    if has_texts and not all(issubclass(kind, (str, bytes)) for kind in types):
        return None
    try:
        # numpy would give each text the memory of the longest, and make texts of numbers beside texts.
        array = numpy.array(value, dtype=object) if has_texts else numpy.asarray(value)
    except (ValueError, OverflowError):
        return None
    if has_texts:
        return array if all(isinstance(element, (str, bytes)) for element in array.reshape(-1)) else None
    return array if array.dtype.kind in "biuf" else None


def _types(value: Any) -> set[type]:
    """The types of the elements of a list, which may be nested as deep as an array can be."""
    types: set[type] = set()
    level = value
    for _ in range(MOST_DIMENSIONS):
        types.update(map(type, level))
        inner = [element for element in level if isinstance(element, (list, tuple))]
        if not inner:
            break
        level = list(chain.from_iterable(inner))
    return {kind for kind in types if not issubclass(kind, (list, tuple))}


def _of_array(array: Any) -> Any:
    """An array whose elements are objects is sent as texts, if they are texts."""
    if array.dtype.kind == "O":
        elements = array.reshape(-1).tolist()
        if not all(isinstance(element, (str, bytes, bytearray)) for element in elements):
            texts = [element if isinstance(element, (str, bytes)) else to_json(element) for element in elements]
            array = objects(texts).reshape(array.shape)
    return array


def _json(value: Any) -> Any:
    return objects([to_json(value)])
