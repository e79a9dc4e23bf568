"""A script as a model of the Open Inference Protocol: its tensors, its arguments, and its results."""

from __future__ import annotations

import datetime
import itertools
import json
import tracemalloc
from types import SimpleNamespace

import numpy
import pandas
import pytest
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema

from azureml_inference_server_http.api import InferenceRequest, raw_v2
from azureml_inference_server_http.scripting import inference_results, signature
from azureml_inference_server_http.scripting.inference_model import Model, Served
from azureml_inference_server_http.scripting.inference_tensors import Tensor
from azureml_inference_server_http.scripting.inputs import InputError
from azureml_inference_server_http.scripting.open_inference import datatype_of

NUMBERS = itertools.count()
FLOATS = numpy.array([[1.5, 2.5, 3.5]], "f4")
FRAME = pandas.DataFrame(
    {"age": [3], "weight": [1.5], "name": ["a"], "alive": [True], "born": [pandas.Timestamp("2026-11-30")]}
)


def model_of(run):
    call = signature.read(run)
    script = SimpleNamespace(
        mode=call.mode, parameters=call.parameters, input_name=call.parameters[0].name, plain_run=run
    )
    return Model(script, Served("m", "1"))


def decorated(*inputs, output=None, run=None):
    """A run() with these pairs of parameter and type."""
    names = [name for name, _ in inputs]
    defined = {}
    exec(f"def run({', '.join(names)}):\n    return [{', '.join(names)}]", defined)
    made = run or defined["run"]
    # inference-schema knows functions by their names.
    made.__name__ = f"run_{next(NUMBERS)}"
    if output is not None:
        made = output_schema(output)(made)
    for name, kind in inputs:
        made = input_schema(name, kind)(made)
    return made


def sent(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def call(run, *tensors, **more):
    arguments, _ = model_of(run).decode({"inputs": list(tensors), **more}, None)
    return run(**arguments)


def refusal(run, *tensors, **more):
    with pytest.raises(InputError) as caught:
        call(run, *tensors, **more)
    return caught.value.message


def test_an_array_is_one_tensor_whose_first_dimension_is_free():
    run = decorated(("data", NumpyParameterType(FLOATS)))
    model = model_of(run)
    assert json.loads(model.description()) == {
        "name": "m",
        "versions": ["1"],
        "platform": "azmlinfsrv_python",
        "inputs": [{"name": "data", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [],
    }
    [array] = call(run, sent("data", "FP32", [2, 3], [1, 2, 3, 4, 5, 6]))
    assert array.dtype == FLOATS.dtype
    assert array.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (sent("data", "FP64", [1, 3], [1, 2, 3]), "The input 'data' is FP64, but the model takes FP32. Send that."),
        (
            sent("data", "FP32", [1, 2], [1, 2]),
            "The input 'data' has the shape [1, 2], but the model takes [-1, 3], where -1 is any length.",
        ),
        (sent("data", "FP32", [3], [1, 2, 3]), "The input 'data' has the shape [3], but the model takes [-1, 3],"),
        (sent("other", "FP32", [3], [1, 2, 3]), "There is no input 'other'. The inputs are 'data'."),
    ],
)
def test_a_tensor_that_the_model_does_not_take_is_refused_with_the_remedy(tensor, message):
    assert refusal(decorated(("data", NumpyParameterType(FLOATS))), tensor).startswith(message)


def test_a_missing_input_is_named():
    run = decorated(("data", NumpyParameterType(FLOATS)), ("factor", StandardPythonParameterType(1.5)))
    data = sent("data", "FP32", [1, 3], [1, 2, 3])
    assert refusal(run, data) == "The input 'factor' is missing. Send it as FP64 of the shape [1]."


def test_every_dimension_is_free_if_the_schema_does_not_enforce_the_shape():
    model = model_of(decorated(("data", NumpyParameterType(FLOATS, enforce_shape=False))))
    assert model.inputs == [Tensor("data", "FP32", (-1, -1))]


def test_a_frame_is_one_tensor_for_each_column():
    run = decorated(("frame", PandasParameterType(FRAME)))
    assert [tuple(tensor) for tensor in model_of(run).inputs] == [
        ("age", "INT64", (-1,), False),
        ("weight", "FP64", (-1,), False),
        ("name", "BYTES", (-1,), False),
        ("alive", "BOOL", (-1,), False),
        ("born", "BYTES", (-1,), False),
    ]
    columns = [
        sent("age", "INT64", [2], [1, 2]),
        sent("weight", "FP64", [2, 1], [1, 2]),
        sent("name", "BYTES", [2], ["x", "y"]),
        sent("alive", "BOOL", [2], [True, False]),
        sent("born", "BYTES", [2], ["2026-01-01", "2026-01-02"]),
    ]
    [frame] = call(run, *columns)
    assert frame.dtypes.to_dict() == FRAME.dtypes.to_dict()
    assert frame["name"].tolist() == ["x", "y"]
    assert frame["born"].dt.day.tolist() == [1, 2]
    [frame] = call(run, *columns[:4], sent("born", "BYTES", [2], ["null", "2026-01-02"]))
    assert frame["born"].isna().tolist() == [True, False]
    short = [*columns[:4], sent("born", "BYTES", [1], ["2026-01-01"])]
    assert refusal(run, *short).startswith("The columns of the input 'frame' differ in length: {'age': 2,")
    wrong = [*columns[:4], sent("born", "BYTES", [2], ["a", "b"])]
    assert refusal(run, *wrong).startswith("The input 'born' cannot be read as datetime64[")


def test_columns_have_the_name_of_their_parameter_if_there_are_others():
    run = decorated(("frame", PandasParameterType(FRAME[["age"]])), ("factor", StandardPythonParameterType(2)))
    assert [tensor.name for tensor in model_of(run).inputs] == ["frame.age", "factor"]
    frame, factor = call(run, sent("frame.age", "INT64", [1], [4]), sent("factor", "INT64", [1], [3]))
    assert (frame["age"].tolist(), factor) == ([4], 3)


@pytest.mark.parametrize(
    ("sample", "tensor", "value"),
    [
        (1, sent("value", "INT64", [1], [7]), 7),
        (1.5, sent("value", "FP64", [1], [7]), 7.0),
        (True, sent("value", "BOOL", [1], [False]), False),
        ("text", sent("value", "BYTES", [1], ["Grüße"]), "Grüße"),
        ([1, 2], sent("value", "INT64", [3], [1, 2, 3]), [1, 2, 3]),
        (["a"], sent("value", "BYTES", [2], ["a", "b"]), ["a", "b"]),
        ({"a": 1}, sent("value", "BYTES", [1], ['{"a": 2}']), {"a": 2}),
        ([{"a": 1}], sent("value", "BYTES", [1], ['[{"a": 2}]']), [{"a": 2}]),
        (datetime.time(1, 2), sent("value", "BYTES", [1], ["03:04"]), datetime.time(3, 4)),
    ],
)
def test_python_types_are_scalars_lists_or_json(sample, tensor, value):
    run = decorated(("value", StandardPythonParameterType(sample)))
    assert call(run, tensor) == [value]


def test_wrapped_types_inside_json_are_converted_as_by_score():
    run = decorated(("value", StandardPythonParameterType({"a": NumpyParameterType(FLOATS)})))
    [value] = call(run, sent("value", "BYTES", [1], ['{"a": [[1, 2, 3]]}']))
    assert value["a"].tolist() == [[1, 2, 3]]
    assert refusal(run, sent("value", "BYTES", [1], ["{"])).startswith("The input 'value' must be a JSON text,")
    deep = sent("value", "BYTES", [1], ["[" * 100_000])
    assert refusal(run, deep) == "The input 'value' is a JSON text that is nested too deep."


def test_texts_and_times_in_arrays_are_converted_as_by_score():
    run = decorated(("texts", NumpyParameterType(numpy.array(["abc"]))))
    assert call(run, sent("texts", "BYTES", [2], ["x", "y"]))[0].tolist() == ["x", "y"]


def test_a_parameter_with_a_default_may_be_left_out():
    def run(data, factor=3):
        return factor

    run = decorated(("data", NumpyParameterType(FLOATS)), ("factor", StandardPythonParameterType(1)), run=run)
    assert call(run, sent("data", "FP32", [1, 3], [1, 2, 3])) == 3


def test_an_optional_array_reaches_run():
    def run(data=None):
        return data

    run.__name__ = "run_optional"
    run = input_schema("data", NumpyParameterType(FLOATS), optional=True)(run)
    assert call(run, sent("data", "FP32", [1, 3], [1, 2, 3])).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("sample", "outputs"),
    [
        (NumpyParameterType(FLOATS), [("output", "FP32", (-1, 3))]),
        (NumpyParameterType(numpy.array([1], "u1")), [("output", "UINT8", (-1,))]),
        (NumpyParameterType(numpy.array([["a"]])), [("output", "BYTES", (-1, 1))]),
        (PandasParameterType(FRAME[["age", "name"]]), [("age", "INT64", (-1,)), ("name", "BYTES", (-1,))]),
        (PandasParameterType(FRAME[["age"]], orient="split"), []),
        (StandardPythonParameterType(1), [("output", "INT64", (1,))]),
        (StandardPythonParameterType([0.5]), [("output", "FP64", (-1,))]),
        (StandardPythonParameterType({"a": 1}), [("output", "BYTES", (1,))]),
        (
            StandardPythonParameterType({"a": NumpyParameterType(FLOATS), "b": NumpyParameterType(numpy.ones(2))}),
            [("a", "FP32", (-1, 3)), ("b", "FP64", (-1,))],
        ),
    ],
)
def test_outputs_are_those_of_the_output_schema(sample, outputs):
    model = model_of(decorated(("data", NumpyParameterType(FLOATS)), output=sample))
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in model.outputs] == outputs


def test_an_output_that_the_model_does_not_have_is_refused_before_run():
    run = decorated(("data", NumpyParameterType(FLOATS)), output=NumpyParameterType(FLOATS))
    message = refusal(run, sent("data", "FP32", [1, 3], [1, 2, 3]), outputs=[{"name": "x"}])
    assert message == "There is no output 'x'. The outputs are 'output'."


@pytest.mark.parametrize(
    ("result", "tensors"),
    [
        (None, {}),
        ({}, {}),
        (numpy.array([[1.5]], "f4"), {"output": [[1.5]]}),
        ([1, 2], {"output": [1, 2]}),
        (["a", "b"], {"output": ["a", "b"]}),
        (7, {"output": [7]}),
        (2**70, {"output": [b"1180591620717411303424"]}),
        (0.5, {"output": [0.5]}),
        (True, {"output": [True]}),
        ("text", {"output": ["text"]}),
        ([1, "a"], {"output": [b'[1, "a"]']}),
        ([[1], [2, 3]], {"output": [b"[[1], [2, 3]]"]}),
        ([], {"output": [b"[]"]}),
        ({"a": [1.5], "b": "x", "c": {"d": 1}}, {"a": [1.5], "b": ["x"], "c": [b'{"d": 1}']}),
        ((numpy.ones(1), numpy.zeros(2)), {"output_0": [1], "output_1": [0, 0]}),
        ([numpy.float64(1), numpy.float64(2)], {"output": [1, 2]}),
        (pandas.DataFrame({"a": [1], "b": ["x"]}), {"a": [1], "b": ["x"]}),
        (pandas.Series([1, 2]), {"output": [1, 2]}),
        (numpy.array(["2026-11-30", "NaT"], "M8[D]"), {"output": ["2026-11-30", b"null"]}),
        (
            pandas.Series([pandas.Timestamp("2026-11-30"), None], dtype=object),
            {"output": [b'"2026-11-30T00:00:00"', b"null"]},
        ),
        ([["a", b"b"], ("c", "d")], {"output": [["a", b"b"], ["c", "d"]]}),
        ([["a"], ["b", "c"]], {"output": [b'[["a"], ["b", "c"]]']}),
        (["a", None], {"output": [b'["a", null]']}),
        (numpy.array([{"a": 1}], object), {"output": [b'{"a": 1}']}),
    ],
)
def test_results_without_a_schema_have_their_own_tensors(result, tensors):
    found = inference_results.tensors(result, [])
    assert {name: array.tolist() for name, array in found.items()} == tensors


def test_results_have_the_types_of_the_output_schema():
    known = [Tensor("output", "FP32", (-1, 3))]
    assert inference_results.tensors([[1, 2, 3]], known)["output"].dtype == numpy.dtype("f4")
    named = [Tensor("a", "FP32", (-1,)), Tensor("b", "INT64", (-1,))]
    found = inference_results.tensors({"a": [1], "b": [2], "c": [3]}, named)
    assert [(name, array.dtype.name) for name, array in found.items()] == [("a", "float32"), ("b", "int64")]
    assert list(inference_results.tensors([1, 2], named)) == ["output"]
    text = inference_results.tensors({"a": 1}, [Tensor("output", "BYTES", (1,), is_json=True)])
    assert text["output"].tolist() == [b'{"a": 1}']


CHANGED = [
    ("INT64", [0.75, 1.75], "FP64"),
    ("INT64", [1.0], "FP64"),
    ("INT32", numpy.array([numpy.nan], "f4"), "FP32"),
    ("UINT8", [300], "INT64"),
    ("UINT8", [-1], "INT64"),
    ("INT64", numpy.array([2**63], "u8"), "UINT64"),
    ("BOOL", [0.3], "FP64"),
    ("BOOL", [2], "INT64"),
    ("FP32", [2**24 + 1], "INT64"),
    ("FP32", [1e300], "FP64"),
    ("FP16", [1e-9], "FP64"),
    ("FP32", ["a"], "BYTES"),
    ("BYTES", [1], "INT64"),
]


@pytest.mark.parametrize(("declared", "result", "sent_as"), CHANGED)
def test_a_result_that_its_schema_would_change_is_sent_as_it_is_with_one_hint(declared, result, sent_as, caplog):
    known = [Tensor(f"{declared}-{next(NUMBERS)}", declared, (-1,))]
    for _ in range(2):
        [array] = inference_results.tensors({known[0].name: result}, known).values()
        assert array.tolist() == (result if sent_as == "BYTES" else pytest.approx(list(result), nan_ok=True))
        assert datatype_of(array.dtype) == sent_as
    [record] = caplog.records
    assert f"that its datatype {declared}, by the sample" in record.getMessage()
    assert f"sends them as {sent_as}." in record.getMessage()


@pytest.mark.parametrize(
    ("declared", "result", "elements"),
    [
        ("UINT8", [0, 255], [0, 255]),
        ("INT64", [True], [1]),
        ("BOOL", [0, 1], [False, True]),
        ("FP32", [2**24], [2.0**24]),
        ("FP32", [0.1, numpy.inf, -numpy.inf, 0.0], [float(numpy.float32(0.1)), numpy.inf, -numpy.inf, 0.0]),
        ("FP64", numpy.array([0.5], "f2"), [0.5]),
        ("INT8", numpy.array([], "i8"), []),
    ],
)
def test_a_result_has_the_type_of_its_schema_if_no_number_changes(declared, result, elements, caplog):
    array = inference_results.tensors(result, [Tensor("output", declared, (-1,))])["output"]
    assert datatype_of(array.dtype) == declared
    assert array.tolist() == elements
    assert not caplog.records


def test_a_long_text_of_a_result_does_not_give_its_memory_to_its_neighbours():
    result = ["a" * 1_000_000, *["b"] * 1000]
    tracemalloc.start()
    try:
        assert inference_results.tensors(result, [])["output"].tolist() == result
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 20_000_000


def test_raw_v2_gets_the_tensors_and_the_parameters():
    @raw_v2
    def run(request):
        return request

    model = model_of(run)
    assert (model.inputs, model.outputs) == ([], [])
    document = {
        "id": "7",
        "parameters": {"a": 1},
        "inputs": [sent("x", "INT8", [1], [1]), sent("y", "BYTES", [1], ["b"])],
        "outputs": [{"name": "z"}],
    }
    arguments, _ = model.decode(document, None)
    request = arguments["request"]
    assert isinstance(request, InferenceRequest)
    assert {name: array.tolist() for name, array in request.inputs.items()} == {"x": [1], "y": [b"b"]}
    assert request[1:] == ({"a": 1}, "7", ("z",), "m", "1")
    assert Model.plain(arguments) == {"request": {"x": [1], "y": ["b"]}}


def test_a_script_without_tensors_says_so():
    def run(data):
        return data

    assert refusal(run).startswith("The model takes no tensors, because run() has neither @input_schema nor @raw_v2.")
