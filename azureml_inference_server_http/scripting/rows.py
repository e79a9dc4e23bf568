"""Joins inputs of several requests along their first dimension, and splits a result again by the
rows of each request.

Pure functions. They take only types whose rows are certain, and refuse all others. numpy and pandas
are not imported here: a value of their types exists only if the script has imported them. Runs in
workers.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Hashable, Iterator, Sequence
from itertools import accumulate
from typing import Any


class CannotSplit(Exception):
    """A result has a part that does not have one row for each row of the input. The message names
    it."""


def form(value: Any) -> tuple[int, Hashable] | None:
    """The number of rows of an array or a frame, and what else has to be equal before it can be
    joined with others. None if it cannot be joined.

    Types and trailing dimensions have to be equal, because joining would convert the values of one
    request for another one. An index other than 0, 1, 2 would get lost. Without rows, an answer has
    no part of the result.
    """
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and type(value) is numpy.ndarray:
        if not value.ndim or not len(value):
            return None
        return len(value), ("array", value.dtype, value.shape[1:])
    if pandas is not None and type(value) is pandas.DataFrame:
        is_counted = value.index.dtype == "int64" and value.index.equals(pandas.RangeIndex(len(value)))
        if not is_counted or not len(value) or not value.columns.is_unique:
            return None
        return len(value), ("frame", tuple(value.columns), value.columns.dtype, tuple(value.dtypes))
    return None


def join(values: Sequence[Any]) -> Any:
    """One array or frame with the rows of all, which have the same form."""
    first = values[0]
    numpy = sys.modules["numpy"]
    if type(first) is numpy.ndarray:
        joined = numpy.empty((sum(map(len, values)), *first.shape[1:]), first.dtype)
        numpy.concatenate(values, out=joined)
        return joined
    frame = sys.modules["pandas"].concat(values, ignore_index=True)
    if not frame.dtypes.equals(first.dtypes):
        raise TypeError("pandas has changed the types of the columns")
    return frame


def split(result: Any, rows: Sequence[int]) -> list[Any]:
    """The part of the result for each request. Raises CannotSplit, which names the place in the
    result."""
    ends = list(accumulate(rows))
    return list(_split(result, list(zip([0, *ends], ends)), "$"))


def _split(value: Any, ranges: list[tuple[int, int]], place: str) -> Iterator[Any]:
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    kind = type(value)
    if kind is dict and value:
        parts: list[dict[Any, Any]] = [{} for _ in ranges]
        for key, inner in value.items():
            for part, piece in zip(parts, _split(inner, ranges, f"{place}[{key!r:.80}]")):
                part[key] = piece
        return iter(parts)
    total = ranges[-1][1]
    if kind is list or kind is tuple or (numpy is not None and kind is numpy.ndarray and value.ndim):
        _check_length(len(value), total, place, kind)
        return (value[start:end] for start, end in ranges)
    if pandas is not None and (kind is pandas.DataFrame or kind is pandas.Series):
        _check_length(len(value), total, place, kind)
        return (value.iloc[start:end] for start, end in ranges)
    raise CannotSplit(f"{place} is of type {kind.__name__}, which has no rows")


def _check_length(length: int, total: int, place: str, kind: type) -> None:
    if length != total:
        raise CannotSplit(f"{place} is a {kind.__name__} of length {length} for {total} rows of input")


def contents(value: Any) -> list[Hashable]:
    """A value for each row of an array or a frame; those of two rows are equal if the rows are."""
    if type(value) is sys.modules["numpy"].ndarray:
        return [repr(row) for row in value.tolist()] if value.dtype.hasobject else [row.tobytes() for row in value]
    return list(map(repr, zip(*(value[column].tolist() for column in value.columns))))


def form_of_result(result: Any) -> Hashable:
    """What a result that can be split has besides its rows: each request gets all of it."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    kind = type(result)
    if kind is dict:
        return ("dict", *((repr(key), form_of_result(inner)) for key, inner in result.items()))
    if numpy is not None and kind is numpy.ndarray:
        return "array", _without_length(result.dtype), result.shape[1:]
    if pandas is not None and kind is pandas.DataFrame:
        return "frame", repr(list(result.columns)), tuple(result.dtypes)
    if pandas is not None and kind is pandas.Series:
        return "series", repr(result.name), result.dtype
    return kind.__name__


def _without_length(dtype: Any) -> Hashable:
    """The type of an array. That of texts has the length of the longest one, which no client sees."""
    form: Hashable = dtype.kind if dtype.kind in "SU" else dtype
    return form


def forms_of_rows(result: Any) -> Hashable:
    """The types of the rows of a result that can be split, and the keys or the common length of rows
    that are dicts or lists."""
    if type(result) is dict:
        return tuple(map(forms_of_rows, result.values()))
    if not isinstance(result, (list, tuple)):
        return ()
    types = {type(row) for row in result}
    names = tuple(sorted(kind.__name__ for kind in types))
    if types == {dict}:
        return names, tuple(sorted({repr(list(row)) for row in result}))
    if types <= {list, tuple}:
        lengths = {len(row) for row in result}
        return names, lengths.pop() if len(lengths) == 1 else "several"
    return names


def agree(alone: bytes, joint: bytes) -> bool:
    """True if two replies, in JSON or with tensors, say the same. Floating-point numbers may differ
    by a little, because a library may add numbers in another order when there are more rows."""
    if alone == joint:
        return True
    try:
        one, other = _read(alone), _read(joint)
    except ValueError:
        return False
    scale = max((abs(number) for number in _floats(one) if math.isfinite(number)), default=0.0)
    return _agree(one, other, scale * 1e-5)


def _read(reply: bytes) -> Any:
    """What a reply says. Raises ValueError if it is neither JSON nor a reply of the Open Inference
    Protocol."""
    protocol: Any = sys.modules.get(f"{__package__}.open_inference")  # imported only if the server speaks it
    document, tensors = None, b""
    if protocol is not None and reply.startswith(b"{"):
        # latin-1 has a character for each byte, so the bytes of tensors may follow the JSON.
        document, end = json.JSONDecoder().raw_decode(reply.decode("latin-1"))
        tensors = reply[end:]
    if document is None or "model_name" not in document or "outputs" not in document:
        return json.loads(reply)
    try:
        # Tensors of a reply have the form of those of a request.
        arrays = protocol.decode({"inputs": document["outputs"]}, tensors or None).inputs
    except protocol.InputError:
        return json.loads(reply)
    outputs = [
        [output["name"], output["datatype"], output["shape"], _elements(arrays[output["name"]])]
        for output in document["outputs"]
    ]
    return {**document, "outputs": outputs}


def _elements(array: Any) -> list[Any]:
    elements: list[Any] = array.reshape(-1).tolist()
    return [_of_text(element) if isinstance(element, bytes) else element for element in elements]


def _of_text(text: bytes) -> Any:
    """The value of a text that is JSON, because a result that no tensor can have is sent so."""
    if text.startswith((b"[", b"{")):
        with contextlib.suppress(ValueError):
            return json.loads(text)
    return text


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _floats(inner)


def _agree(one: Any, other: Any, tolerance: float) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=tolerance) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list):
        return len(one) == len(other) and all(_agree(left, right, tolerance) for left, right in zip(one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_agree(one[key], other[key], tolerance) for key in one)
    return bool(one == other)
