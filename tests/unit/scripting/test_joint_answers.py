"""A joint answer and a single answer are the same, byte for byte."""

from __future__ import annotations

import json
import random

import pytest
from joining import NUMPY, arguments, join

from azureml_inference_server_http.scripting import outputs

SCHEMAS = """
import numpy as np, pandas as pd
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType as F
TIMES = np.array(["2020-01-01T00:00:00"], "datetime64[s]")
PAIRS = np.array([(1, "xyz")], [("a", "int32"), ("b", "<U5")])
FRAME = pd.DataFrame({"a": [1], "b": [1.5], "c": ["x"]})
CATEGORIES = pd.DataFrame({"a": [1], "c": pd.Categorical(["x"], categories=["x", "y", "z"])})
SAMPLES = {
    "floats": N(np.ones((1, 3))),
    "small floats": N(np.ones((1, 3), "float32")),
    "integers": N(np.ones((1, 3), "int64")),
    "bytes": N(np.ones((1, 2, 2), "uint8")),
    "line": N(np.ones(3)),
    "any type": N(np.ones((1, 3)), enforce_column_type=False),
    "any shape": N(np.ones((1, 3)), enforce_shape=False),
    "words": N(np.array(["sample"])),
    "times": N(TIMES),
    "pairs": N(PAIRS),
    "frame": F(FRAME),
    "free frame": F(FRAME, enforce_column_type=False, enforce_shape=False),
    "split frame": F(FRAME, orient="split"),
    "categories": F(CATEGORIES),
}
RESULTS = {
    "list": lambda data: np.asarray(data).tolist(),
    "tuple": lambda data: tuple(np.asarray(data).tolist()),
    "array": lambda data: data.to_numpy() if hasattr(data, "to_numpy") else data,
    "dict": lambda data: {"rows": np.asarray(data).tolist(), "inner": {"shape": list(map(np.shape, np.asarray(data)))}},
    "frame": lambda data: pd.DataFrame({"text": [str(row) for row in np.asarray(data).tolist()]}),
    "series": lambda data: pd.Series([len(str(row)) / 7 for row in np.asarray(data).tolist()]),
    "computed": lambda data: {"score": [np.float32(len(str(row))) / 3 for row in np.asarray(data).tolist()]},
}
"""
MIXED = (
    NUMPY
    + SCHEMAS
    + """
@input_schema("data", SAMPLES["SAMPLE_NAME"])
def run(data, result="list"):
    return RESULTS[result](data)
"""
)
RESULT_KINDS = ("list", "tuple", "array", "dict", "frame", "series", "computed")


def number(chance):
    return chance.choice([chance.randint(-9, 300), chance.uniform(-2, 2), 1e300, -0.0, 0.1])


def data_for(sample, chance):
    """The data of a random request; sometimes it is wrong."""
    count = chance.choice([1, 1, 1, 2, 3, 7, 0])
    width = 3 if chance.random() < 0.95 else chance.randint(1, 4)
    if sample in ("integers", "any type") and chance.random() < 0.7:
        return [[chance.randint(-9, 2**40) for _ in range(width)] for _ in range(count)]
    if sample == "bytes":
        return [[[chance.randint(0, 255) for _ in range(2)] for _ in range(2)] for _ in range(count)]
    if sample == "line":
        return [number(chance) for _ in range(count)]
    if sample == "words":
        return ["".join(chance.choice("abcé") for _ in range(chance.randint(0, 9))) for _ in range(count)]
    if sample == "times":
        return [f"20{chance.randint(10, 99)}-03-0{chance.randint(1, 9)}T01:02:03" for _ in range(count)]
    if sample == "pairs":
        return [{"a": chance.randint(0, 9), "b": chance.choice("xyz")} for _ in range(count)]
    if "frame" in sample or sample == "categories":
        values = [
            {"a": chance.randint(0, 9), "b": chance.choice([0.5, 2, None, 1e20]), "c": chance.choice("xyz")}
            for _ in range(count)
        ]
        if sample == "categories":
            values = [{"a": row["a"], "c": row["c"]} for row in values]
        if sample == "split frame":
            return {
                "columns": ["a", "b", "c"],
                "index": list(range(count)),
                "data": [list(row.values()) for row in values],
            }
        return values
    return [[number(chance) for _ in range(width)] for _ in range(count)]


def answer(call):
    """The bytes of the reply, or what was raised."""
    try:
        return outputs.render(call(), "POST").body
    except Exception as error:
        return type(error).__name__


FRAMES = ("frame", "free frame", "split frame", "categories")
SAMPLES = ("floats", "small floats", "integers", "bytes", "line", "any type", "any shape") + (
    "words",
    "times",
    "pairs",
    *FRAMES,
)


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.filterwarnings("ignore")
def test_joint_answers_are_the_single_answers(batches_of, sample):
    """480 random requests of each of ten schemas of arrays, and 80 of each of four of frames, which are slow to make:
    5,120."""
    chance = random.Random(sample)
    script, batches = batches_of(MIXED.replace("SAMPLE_NAME", sample))
    joined = 0
    for _ in range(10 if sample in FRAMES else 60):
        results = chance.sample(RESULT_KINDS, 2)
        bodies = [
            json.dumps({"data": data_for(sample, chance), "result": chance.choice(results)}).encode() for _ in range(8)
        ]
        alone = [answer(lambda: script.run(**arguments(script, body))) for body in bodies]  # noqa: B023
        for joint in join(batches, [arguments(script, body) for body in bodies]):
            parts = batches.split(joint, script.run(**joint.arguments)).parts
            joined += len(parts)
            for place, part in zip(joint.places, parts):
                assert answer(lambda: part) == alone[place], bodies[place]  # noqa: B023
    assert joined > 20, "few requests were joined"
