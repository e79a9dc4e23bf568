"""Finds the parameters of a schema-decorated run() whose numbers can be read from the request into
a numpy array.

inference-schema makes a numpy array of a list, but takes an array as it is. So Rust may make the
array (``src/worker/convert/arrays.rs``) if no other code would see the list. This module proves
that. A parameter for which the proof fails gets a list as usual. Imports neither numpy nor
inference-schema. Runs in workers, again for every large request, because a script may change its
schema at any time.
"""

from __future__ import annotations

import sys
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

# Releases of inference-schema whose code has been read for this proof.
KNOWN_RELEASES = ("1.7.1", "1.7.2", "1.8")
# The types that src/worker/convert/arrays.rs reads.
TYPE_NAMES = ("float64", "float32", "int64", "int32", "uint8")


class ArrayInput(NamedTuple):
    """A parameter, with the type and shape of the arrays that its schema takes."""

    name: str
    dtype: Any
    type_name: str  # one of TYPE_NAMES
    shape: tuple[int, ...] | None  # the shape of the sample, if the schema requires it


def array_inputs(run: Any) -> list[ArrayInput]:
    """The parameters of ``run`` whose JSON lists become numpy arrays before any other code can see
    the lists."""
    decorators = sys.modules.get("inference_schema.schema_decorators")
    numpy_types = sys.modules.get("inference_schema.parameter_types.numpy_parameter_type")
    if decorators is None or numpy_types is None or not _is_untouched(decorators, numpy_types):
        return []
    first_to_see: dict[str, ArrayInput | None] = {}
    for settings in outer_schemas(decorators, run)[0]:
        name = settings["param_name"]
        first_to_see.setdefault(name, _array_input(name, settings, numpy_types))
    return [found for found in first_to_see.values() if found is not None]


def outer_schemas(decorators: ModuleType, run: Any) -> tuple[list[dict[str, Any]], Any]:
    """The arguments of each ``@input_schema`` around ``run``, the outermost first, and what is below them.

    It ends at the function, or at a decorator that is not inference-schema's, because that could look
    at the arguments.
    """
    found = []
    while type(run) is decorators.wrapt.FunctionWrapper and run._self_enabled is None:
        wrapper = run._self_wrapper
        if not _is_of(decorators, wrapper):
            break
        if wrapper.__qualname__ == "input_schema.<locals>.decorator_input":
            found.append(dict(zip(wrapper.__code__.co_freevars, (cell.cell_contents for cell in wrapper.__closure__))))
        run = run.__wrapped__
    return found, run


def _array_input(name: str, settings: dict[str, Any], numpy_types: ModuleType) -> ArrayInput | None:
    parameter, numpy = settings["param_type"], numpy_types.np
    if settings["convert_to_provided_type"] is not True:
        return None
    if settings["optional"] is not False:  # for these, inference-schema evaluates bool(value), which fails for arrays
        return None
    if type(parameter) is not numpy_types.NumpyParameterType or "deserialize_input" in vars(parameter):
        return None
    if parameter.sample_data_type is not numpy.ndarray or type(parameter.sample_input) is not numpy.ndarray:
        return None
    if parameter.enforce_column_type is not True or type(parameter.enforce_shape) is not bool:
        return None
    dtype = parameter.sample_input.dtype
    # A type equals the type of its name only if it has this machine's byte order.
    if dtype.name not in TYPE_NAMES or dtype != numpy.dtype(dtype.name) or dtype.metadata is not None:
        return None
    return ArrayInput(name, dtype, dtype.name, parameter.sample_input.shape if parameter.enforce_shape else None)


def _is_untouched(decorators: ModuleType, numpy_types: ModuleType) -> bool:
    """True if the functions that make an array of a list are those of a known release, and nobody
    has replaced them."""
    converter = vars(numpy_types.NumpyParameterType)
    return (
        is_known(decorators)
        and _is_of(numpy_types, converter["deserialize_input"])
        and _is_of(numpy_types, converter["_preprocess_json_input"].__func__)
        and type(numpy_types.np.array) is type(len)
    )


def is_known(decorators: ModuleType) -> bool:
    """True if this module is of a known release of inference-schema, and nobody has replaced the
    function that converts values."""
    return _is_known_release(str(decorators.__file__)) and _is_of(decorators, decorators._deserialize_input_argument)


def _is_of(module: ModuleType, function: Any) -> bool:
    return type(function) is FunctionType and function.__globals__ is vars(module)


@cache
def _is_known_release(file: str) -> bool:
    import importlib.metadata  # imported here, because it is slow and most scripts do not need it

    try:
        installed = importlib.metadata.distribution("inference-schema")
    except importlib.metadata.PackageNotFoundError:
        return False
    is_its = str(installed.locate_file("inference_schema/schema_decorators.py")) == file
    return is_its and installed.version in KNOWN_RELEASES
