"""Which parameters of run() may be read straight into arrays, and all that speaks against it."""

from __future__ import annotations

import importlib.metadata
import pickle

import numpy as np
import pytest
from inference_schema import schema_decorators
from inference_schema.parameter_types import numpy_parameter_type
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

from azureml_inference_server_http.scripting import arrays

ROWS = np.ones((2, 3))


def names(run):
    return [found.name for found in arrays.array_inputs(run)]


def with_schema(parameter_type, **options):
    """A run() with a parameter of that type."""

    @input_schema("data", parameter_type, **options)
    def run(data):
        return data

    return run


def passing(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def test_a_numpy_parameter_with_its_type_and_shape():
    (found,) = arrays.array_inputs(with_schema(NumpyParameterType(ROWS)))
    assert found == ("data", ROWS.dtype, "float64", (2, 3))
    (found,) = arrays.array_inputs(with_schema(NumpyParameterType(ROWS, enforce_shape=False)))
    assert found.shape is None


def test_this_release_of_inference_schema_is_known():
    """The code of a new release must be read first: only its decorator may see the list, and an
    array must pass unchanged."""
    assert importlib.metadata.version("inference-schema") in arrays.KNOWN_RELEASES


@pytest.mark.parametrize("name", arrays.TYPE_NAMES)
def test_types_that_are_read(name):
    sample = pickle.loads(pickle.dumps(np.ones(2, name)))
    assert names(with_schema(NumpyParameterType(sample))) == ["data"]


@pytest.mark.parametrize(
    "dtype", [">f8", ">i4", "float16", "longdouble", "uint64", "bool", "complex128", "M8[s]", "m8[s]", "U3", "O"]
)
def test_types_that_are_not(dtype):
    parameter_type = NumpyParameterType(np.zeros(2))
    run = with_schema(parameter_type)
    assert names(run) == ["data"]
    parameter_type.sample_input = np.zeros(2, dtype)
    assert names(run) == []


def test_a_type_with_metadata_is_not():
    sample = np.zeros(2, np.dtype("f8", metadata={"unit": "m"}))
    assert names(with_schema(NumpyParameterType(sample))) == []


class Own(NumpyParameterType):
    pass


@pytest.mark.parametrize(
    ("parameter_type", "options"),
    [
        (Own(ROWS), {}),
        (StandardPythonParameterType([1.0]), {}),
        (StandardPythonParameterType({"data": NumpyParameterType(ROWS)}), {}),
        (NumpyParameterType(ROWS, enforce_column_type=False), {}),
        (NumpyParameterType(ROWS.view(np.recarray)), {}),
        (NumpyParameterType(ROWS), {"optional": True}),
        (NumpyParameterType(ROWS), {"convert_to_provided_type": False}),
    ],
)
def test_parameters_that_are_not_certain_to_become_arrays(parameter_type, options):
    assert names(with_schema(parameter_type, **options)) == []


def test_a_schema_that_changes_later():
    parameter_type = NumpyParameterType(ROWS)
    run = with_schema(parameter_type)
    parameter_type.deserialize_input = list
    assert names(run) == []


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (NumpyParameterType, "deserialize_input"),
        (schema_decorators, "_deserialize_input_argument"),
        (numpy_parameter_type.np, "array"),
    ],
)
def test_conversions_that_were_replaced(monkeypatch, owner, name):
    run = with_schema(NumpyParameterType(ROWS))
    monkeypatch.setattr(owner, name, passing(getattr(owner, name)))
    assert names(run) == []


def test_a_release_that_is_not_known(monkeypatch):
    monkeypatch.setattr(arrays, "KNOWN_RELEASES", ("1.0",))
    arrays._is_known_release.cache_clear()
    try:
        assert names(with_schema(NumpyParameterType(ROWS))) == []
    finally:
        arrays._is_known_release.cache_clear()


def test_only_what_no_other_decorator_sees():
    array = NumpyParameterType(ROWS)

    @input_schema("a", array)
    @output_schema(array)
    @input_schema("b", StandardPythonParameterType(1))
    @input_schema("c", array)
    @passing
    def run(a, b, c):
        return None

    assert names(run) == ["a", "c"]
    assert names(passing(run)) == []


def test_a_decorator_between():
    array = NumpyParameterType(ROWS)

    def between(function):
        def wrapper(a, b):
            return function(a, b)

        wrapper.__wrapped__ = function
        return wrapper

    @input_schema("a", array)
    @between
    @input_schema("b", array)
    def run(a, b):
        return None

    assert names(run) == ["a"]


def test_the_outermost_of_two_types_decides():
    array, same = NumpyParameterType(ROWS), StandardPythonParameterType([[1.0]])
    assert names(input_schema("data", array)(with_schema(same))) == ["data"]
    assert names(input_schema("data", same)(with_schema(array))) == []


def test_without_any_schema():
    assert names(lambda data: data) == []
