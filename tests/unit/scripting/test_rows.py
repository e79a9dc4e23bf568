"""What can be joined along its first dimension, and what a result is split into."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from azureml_inference_server_http.scripting import inference_model, inference_replies, inference_results, rows
from azureml_inference_server_http.scripting.open_inference import Asked

FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.ones((2, 3)), np.zeros((1, 3))),
        (np.array(["a"], "<U3"), np.array(["b", "c"], "<U3")),
        (FRAME, FRAME[:1]),
        (FRAME.astype({"b": "category"}), FRAME.astype({"b": "category"})),
    ],
)
def test_values_of_one_form(one, other):
    assert rows.form(one)[1] == rows.form(other)[1]
    assert rows.form(one)[0] == len(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.ones((2, 3)), np.ones((2, 4))),
        (np.ones(2), np.ones((2, 1))),
        (np.ones(2, "int64"), np.ones(2, "float64")),
        (np.ones(2, ">f8"), np.ones(2, "<f8")),
        (np.array(["a"]), np.array(["ab"])),
        (FRAME, FRAME[["b", "a"]]),
        (FRAME, FRAME.astype({"a": "float64"})),
        (FRAME.astype({"b": "category"}), FRAME[:1].astype({"b": "category"})),
        (FRAME, FRAME.rename(columns={"a": "c"})),
        (np.ones((2, 2)), FRAME),
    ],
)
def test_values_of_different_forms(one, other):
    assert rows.form(one)[1] != rows.form(other)[1]


@pytest.mark.parametrize(
    "value",
    [
        np.array(5.0),
        np.ones((0, 3)),
        np.ma.masked_array([1, 2]),
        FRAME[:0],
        FRAME.set_index("b"),
        FRAME.set_index(pd.RangeIndex(5, 7)),
        pd.concat([FRAME, FRAME], axis=1),
        [[1.0]],
        None,
    ],
)
def test_values_that_are_not_joined(value):
    assert rows.form(value) is None


@pytest.mark.parametrize("dtype", ["float32", ">f8", "int8", "bool", "<U4", "datetime64[s]", "object"])
def test_joined_arrays_keep_type_and_values(dtype):
    parts = [np.array([[1], [0]]).astype(dtype), np.array([[1]]).astype(dtype)]
    joined = rows.join(parts)
    assert joined.dtype == np.dtype(dtype)
    assert joined.dtype.byteorder == np.dtype(dtype).byteorder
    assert joined.tolist() == parts[0].tolist() + parts[1].tolist()
    assert joined.flags.writeable
    assert joined.flags.owndata
    assert joined.flags.c_contiguous


def test_structured_arrays_are_joined():
    dtype = np.dtype([("a", "int32"), ("b", "<U3")])
    joined = rows.join([np.array([(1, "x")], dtype), np.array([(2, "y")], dtype)])
    assert joined.dtype == dtype
    assert joined.tolist() == [(1, "x"), (2, "y")]


def test_joined_frames_count_their_rows_from_zero():
    joined = rows.join([FRAME, FRAME])
    assert joined.index.equals(pd.RangeIndex(4))
    assert joined["b"].tolist() == ["x", "y"] * 2


def split(result):
    """The parts for requests of two rows and one."""
    return rows.split(result, [2, 1])


def test_results_with_a_row_for_each_row():
    assert split([1, 2, 3]) == [[1, 2], [3]]
    assert split((1, 2, 3)) == [(1, 2), (3,)]
    assert [part.tolist() for part in split(np.arange(6).reshape(3, 2))] == [[[0, 1], [2, 3]], [[4, 5]]]
    assert split({"a": [1, 2, 3], "b": {"c": ["x", "y", "z"]}}) == [
        {"a": [1, 2], "b": {"c": ["x", "y"]}},
        {"a": [3], "b": {"c": ["z"]}},
    ]
    frame = pd.DataFrame({"a": [1, 2, 3]})
    assert [part.to_dict("records") for part in split(frame)] == [[{"a": 1}, {"a": 2}], [{"a": 3}]]
    assert [list(part) for part in split(frame["a"])] == [[1, 2], [3]]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ([1, 2], "$ is a list of length 2 for 3 rows of input"),
        (np.ones((2, 3)), "$ is a ndarray of length 2"),
        (np.array(5), "$ is of type ndarray"),
        ({"mean": 1.5, "a": [1, 2, 3]}, "$['mean'] is of type float"),
        ({"a": {"b": "text"}}, "$['a']['b'] is of type str"),
        ({}, "$ is of type dict"),
        (None, "$ is of type NoneType"),
        ("abc", "$ is of type str"),
        (np.ma.masked_array([1, 2, 3]), "$ is of type MaskedArray"),
        (pd.DataFrame({"a": [1]}), "$ is a DataFrame of length 1"),
    ],
)
def test_results_without_a_row_for_each_row(result, text):
    with pytest.raises(rows.CannotSplit) as raised:
        split(result)
    assert text in str(raised.value)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], True),
        ([0.1234567], [0.1234568], True),
        ([1e-9, 1000.0], [2e-9, 1000.0], True),
        ([1.0], [1.1], False),
        ([1], [2], False),
        ([1], [1.0], False),
        ([True], [1], False),
        ([[1.0]], [1.0], False),
        ([1.0, 2.0], [1.0], False),
        ({"a": 1, "b": "x"}, {"a": 1, "b": "x"}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, False),
        ([float("nan")], [float("nan")], True),
        ([float("nan")], [1.0], False),
        ([float("inf")], [float("inf")], True),
        (None, None, True),
    ],
)
def test_replies_that_say_the_same(one, other, expected):
    # The blank makes the bytes differ.
    assert rows.agree(json.dumps(one).encode(), json.dumps(other).encode() + b" ") is expected


def test_text_that_is_no_json_does_not_agree():
    assert not rows.agree(b"{", b"{}")


def v2_reply(result, binary):
    tensors = inference_results.tensors(result, [])
    encoded = inference_replies.encode(tensors, Asked(None, {}, binary), "m", "1")
    return inference_model.whole(encoded).body


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (np.array([1.0, 0.5]), np.array([1.0 + 1e-7, 0.5]), True),
        (np.array([1.0, 0.5], "f4"), np.array([1.5, 0.5], "f4"), False),
        (np.array([1, 2]), np.array([1, 3]), False),
        # These bytes are blanks.
        (np.array([32], "u1"), np.array([10], "u1"), False),
        (np.array([1.0]), np.array([1.0], "f4"), False),
        (np.array([1.0]), np.array([[1.0]]), False),
        ([{"a": 1.0}], [{"a": 1.0 + 1e-7}], True),
        ([{"a": 1.0}], [{"a": 1.5}], False),
        (["a", "["], ["a", "{"], False),
        ({"a": np.ones(1), "b": ["x"]}, {"a": np.ones(1) + 1e-7, "b": ["x"]}, True),
        ({"a": np.ones(1), "b": ["x"]}, {"a": np.ones(1) + 1e-7, "b": ["y"]}, False),
    ],
)
def test_replies_with_tensors_that_say_the_same(one, other, expected, binary):
    assert rows.agree(v2_reply(one, binary), v2_reply(other, binary)) is expected


def test_a_reply_that_only_looks_like_tensors_is_compared_as_json():
    for outputs in ([], [1], {}, [{"name": "a", "datatype": "FP32", "shape": [2], "data": [1.0]}]):
        one = {"model_name": "m", "outputs": outputs, "x": 1.0}
        assert rows.agree(json.dumps(one).encode(), json.dumps({**one, "x": 1.0 + 1e-7}).encode())
        assert not rows.agree(json.dumps(one).encode(), json.dumps({**one, "x": 2.0}).encode())
