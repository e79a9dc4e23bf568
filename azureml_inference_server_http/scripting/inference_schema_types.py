"""The parameters of a schema-decorated run() as tensors of the Open Inference Protocol.

Owns what becomes of each type of inference-schema: an array is one tensor, a data frame one for each column, and
whatever has no tensor of its own is a JSON text, which run() gets as it gets JSON by /score. Runs in workers, once
after init(), and for each request to make the arguments.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any, Callable, NamedTuple

import numpy

from .inference_results import OUTPUT
from .inference_tensors import FREE, Tensor, json_tensor, of_schema
from .inputs import InputError
from .open_inference import BYTES, DTYPES, datatype_of

NEEDED = inspect.Parameter.empty
_UTILITY = "inference_schema.schema_util"


class Parameter(NamedTuple):
    """A parameter of run(): its tensors, and how its value is made of them."""

    name: str
    tensors: list[Tensor]
    convert: Callable[[Mapping[str, Any]], Any]
    # What run() gets if the request does not have it; NEEDED if the request must.
    default: Any

    def is_given(self, inputs: Mapping[str, Any]) -> bool:
        """Whether the request has the parameter. Raises InputError if it must have it, or has a part of it only."""
        missing = [tensor.name for tensor in self.tensors if tensor.name not in inputs]
        if not missing:
            return True
        if self.default is not NEEDED and len(missing) == len(self.tensors):
            return False
        raise InputError(
            400, f"The input {missing[0]!r} is missing. Send it as {_described(self.tensors, missing[0])}."
        )

    def value(self, inputs: Mapping[str, Any]) -> Any:
        """The argument. Raises InputError if a tensor has another type or shape than the model takes."""
        return self.convert({tensor.name: _checked(tensor, inputs[tensor.name]) for tensor in self.tensors})


def _described(tensors: Sequence[Tensor], name: str) -> str:
    tensor = next(tensor for tensor in tensors if tensor.name == name)
    return f"{tensor.datatype} of the shape {list(tensor.shape)}"


def _checked(tensor: Tensor, array: Any) -> Any:
    datatype = datatype_of(array.dtype)
    if tensor.datatype and datatype != tensor.datatype:
        raise InputError(
            400, f"The input {tensor.name!r} is {datatype}, but the model takes {tensor.datatype}. Send that."
        )
    shape = tensor.shape
    is_scalar = shape == (1,) and array.size == 1
    is_column = shape == (FREE,) and array.ndim == 2 and array.shape[1] == 1
    fits = len(shape) == array.ndim and all(
        FREE in (length, got) or length == got for length, got in zip(shape, array.shape)
    )
    if is_scalar or is_column:
        return array.reshape(-1)
    if not fits:
        raise InputError(
            400,
            f"The input {tensor.name!r} has the shape {list(array.shape)}, but the model takes {list(shape)}, where -1 "
            "is any length. Send that shape.",
        )
    return array


class _Declared(NamedTuple):
    """What @input_schema says about a parameter."""

    type: Any
    converts: bool
    is_optional: bool


def parameters(run: Any, signature: Sequence[inspect.Parameter]) -> list[Parameter]:
    """The parameters of run(), in the order of its signature."""
    declared = _declared(run)
    schema = _utility().get_input_schema(run)
    properties, examples = schema.get("properties", {}), schema.get("example", {})
    made = []
    for parameter in signature:
        name, known = parameter.name, declared.get(parameter.name)
        tensors, convert = _of_type(name, known, properties.get(name), examples.get(name), is_only=len(signature) == 1)
        made.append(Parameter(name, tensors, convert, parameter.default))
    return made


def outputs(run: Any) -> list[Tensor]:
    """The tensors that @output_schema describes. Empty without it, and for a data frame that is not sent as records."""
    schema = _utility().get_output_schema(run)
    if "example" not in schema:
        return []
    form = str(schema.get("format", ""))
    if form.startswith("pandas.DataFrame:") and form != "pandas.DataFrame:records":
        return []
    return of_schema(OUTPUT, schema, schema["example"])


def _utility() -> Any:
    return sys.modules[_UTILITY]


def _declared(run: Any) -> dict[str, _Declared]:
    """The parameters of the @input_schema decorators around run(). A decorator of the script between them that has no
    ``__wrapped__`` hides those inside it, so their parameters count as JSON."""
    decorators = sys.modules.get("inference_schema.schema_decorators")
    found: dict[str, _Declared] = {}
    while decorators is not None and run is not None:
        wrapper = getattr(run, "_self_wrapper", None)
        if type(wrapper) is FunctionType and wrapper.__globals__ is vars(decorators) and wrapper.__closure__:
            cells = dict(zip(wrapper.__code__.co_freevars, (cell.cell_contents for cell in wrapper.__closure__)))
            if "param_type" in cells:
                converts = bool(cells.get("convert_to_provided_type", True))
                found.setdefault(
                    cells["param_name"], _Declared(cells["param_type"], converts, bool(cells.get("optional", False)))
                )
        run = getattr(run, "__wrapped__", None)
    return found


def _of_type(
    name: str, declared: _Declared | None, schema: Any, example: Any, is_only: bool
) -> tuple[list[Tensor], Callable[[Mapping[str, Any]], Any]]:
    kind = type(declared.type).__name__ if declared else ""
    sample = declared.type.sample_input if declared else None
    # inference-schema takes arrays and frames as they are, but it cannot ask an optional one whether it is empty.
    takes_objects = declared is not None and declared.converts and not declared.is_optional
    if declared is not None and kind == "NumpyParameterType" and isinstance(sample, numpy.ndarray):
        return _of_array(name, declared.type, takes_objects)
    if declared is not None and kind == "PandasParameterType":
        return _of_frame(name, declared.type, takes_objects, is_only)
    found = of_schema(name, schema, example) if kind == "StandardPythonParameterType" else [json_tensor(name)]
    [tensor] = found if len(found) == 1 else [json_tensor(name)]
    if tensor.is_json or tensor.name != name:
        return [json_tensor(name)], lambda inputs: _from_json(name, inputs[name])
    if isinstance(sample, (list, tuple, range)):
        return [tensor], lambda inputs: _plain(inputs[name])
    return [tensor], lambda inputs: _plain(inputs[name])[0]


def _of_array(name: str, declared: Any, takes_objects: bool) -> tuple[list[Tensor], Callable[[Mapping[str, Any]], Any]]:
    sample = declared.sample_input
    dtype = sample.dtype
    datatype = BYTES if dtype.kind in "mM" else datatype_of(dtype)
    if datatype is None or dtype.names is not None:
        return [json_tensor(name)], lambda inputs: _from_json(name, inputs[name])
    shape = (FREE, *sample.shape[1:]) if declared.enforce_shape else (FREE,) * sample.ndim
    tensor = Tensor(name, datatype, shape)
    if datatype == BYTES or not takes_objects:
        # Texts and times become what inference-schema makes of them.
        return [tensor], lambda inputs: _plain(inputs[name])
    return [tensor], lambda inputs: inputs[name].astype(dtype, copy=False)


def _of_frame(
    name: str, declared: Any, takes_objects: bool, is_only: bool
) -> tuple[list[Tensor], Callable[[Mapping[str, Any]], Any]]:
    sample = declared.sample_input
    columns = {column: column if is_only else f"{name}.{column}" for column in map(str, sample.columns)}
    tensors = [Tensor(columns[str(column)], _of_column(sample[column].dtype), (FREE,)) for column in sample.columns]

    def convert(inputs: Mapping[str, Any]) -> Any:
        pandas = sys.modules["pandas"]
        lengths = {tensor: len(inputs[tensor]) for tensor in columns.values()}
        if len(set(lengths.values())) > 1:
            raise InputError(
                400, f"The columns of the input {name!r} differ in length: {lengths}. Send one row for each."
            )
        frame = pandas.DataFrame(
            {
                column: _column(columns[str(column)], inputs[columns[str(column)]], sample[column].dtype)
                for column in sample.columns
            }
        )
        if takes_objects:
            return frame
        return json.loads(frame.to_json(orient=declared.orient, date_format="iso"))

    return tensors, convert


def _of_column(dtype: Any) -> str:
    numpy_type = dtype if isinstance(dtype, numpy.dtype) else getattr(dtype, "numpy_dtype", None)
    return (datatype_of(numpy_type) if numpy_type is not None else None) or BYTES


def _column(name: str, array: Any, dtype: Any) -> Any:
    pandas = sys.modules["pandas"]
    values = pandas.Series(_plain(array) if array.dtype == object else array)
    if getattr(dtype, "kind", "") in ("m", "M"):
        # As a reply has a time that is missing.
        values = values.where(values != "null", None)
    try:
        if str(dtype).startswith("timedelta"):
            values = pandas.to_timedelta(values)
        return values.astype(dtype)
    except (ValueError, TypeError) as exc:
        raise InputError(
            400, f"The input {name!r} cannot be read as {dtype}: {exc}. Send values of that type as text."
        ) from exc


def _plain(array: Any) -> list[Any]:
    """The elements as Python has them after reading JSON."""
    values: list[Any] = array.tolist()
    return _texts(values) if array.dtype == DTYPES[BYTES] else values


def _texts(values: list[Any]) -> list[Any]:
    return [_texts(value) if isinstance(value, list) else value.decode("utf-8", "replace") for value in values]


def _from_json(name: str, array: Any) -> Any:
    try:
        return json.loads(array.reshape(-1)[0])
    except ValueError as exc:
        raise InputError(
            400, f"The input {name!r} must be a JSON text, because its type has no tensor of its own: {exc}."
        ) from exc
    except RecursionError as exc:
        raise InputError(400, f"The input {name!r} is a JSON text that is nested too deep.") from exc
