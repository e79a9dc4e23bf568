"""Requests of the Open Inference Protocol when calls are joined, and when the calls of a worker run at once."""

from __future__ import annotations

import json
import re

import numpy
import pytest
from harness import Background
from held import Held
from inference import DATA, INFER, ON, in_bytes, infer, infer_bytes, split

ROWS = "/v2/models/rows/infer"


def rows(first, count):
    """A tensor of rows that begin with these values."""
    data = [number for value in range(first, first + count) for number in (value, 2)]
    return {"name": "data", "shape": [count, 2], "datatype": "FP64", "data": data}


def in_binary(server, first):
    array = numpy.array([[first, 2.0]])
    return infer_bytes(server, ROWS, [in_bytes("data", array, "FP64")], array, parameters={"binary_data_output": True})


@pytest.mark.any_worker_class
def test_joint_answers_are_the_single_answers(start):
    """Requests of both protocols share a call, and each gets the answer in its own form."""
    server = start("rows.py", *ON, "--max_batch_size", "8")
    held = Held(server, json.dumps({"data": [[1001, 2]]}))
    asks = [lambda first=first: infer(server, ROWS, rows(first, 1 + first % 3), id=str(first)) for first in range(12)]
    asks += [lambda first=first: in_binary(server, first) for first in range(12, 18)]
    asks += [lambda first=first: server.score(json.dumps({"data": [[first, 2]]})) for first in range(18, 24)]
    asked = []
    for ask in asks:
        asked.append(Background(ask))
        held.queued(len(asked))
    held.go()
    together = [each.result() for each in asked]
    sizes = [int(count) for count in re.findall(r"run\(\) got (\d+) rows", server.output())]
    assert max(sizes) > 3, "requests have shared calls"
    alone = [ask() for ask in asks]
    assert [(each.status, each.body) for each in together] == [(each.status, each.body) for each in alone]
    assert [each.json()["id"] for each in together[:12]] == [str(first) for first in range(12)]
    assert together[0].json()["outputs"][0] == {"name": "sum", "datatype": "FP64", "shape": [1], "data": [2.0]}
    described, tail = split(together[12])
    assert described["outputs"][0]["shape"] == [1]
    assert numpy.frombuffer(tail[:8]).tolist() == [14.0]


@pytest.mark.any_worker_class
def test_only_the_guilty_fail(start):
    server = start("rows.py", *ON, "--max_batch_size", "8")
    held = Held(server, json.dumps({"data": [[1001, 2]]}))
    asked = []
    for first in (1, 1002, 3, 4):
        asked.append(Background(lambda first=first: infer(server, ROWS, rows(first, 1))))
        held.queued(len(asked))
    held.go()
    assert [each.result().status for each in asked] == [200, 500, 200, 200]
    assert list(asked[1].result().json()) == ["error"]


AT_ONCE = """
import threading
import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.schema_decorators import input_schema

everyone = threading.Barrier(4)

def init():
    pass

@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0, 3.0]])))
def run(data):
    everyone.wait(60)
    return data * 2
"""


def test_each_thread_answers_its_own_request(start, script):
    server = start(script(AT_ONCE), *ON, "--model_name", "linear", "--worker_threads", "4")

    def ask(number):
        data = {**DATA, "datatype": "FP64", "data": [number, number, number]}
        return Background(lambda: infer(server, INFER, data, id=str(number)))

    for start_at in range(0, 20, 4):
        asked = [ask(number) for number in range(start_at, start_at + 4)]
        for number, each in enumerate(asked, start_at):
            told = each.result().json()
            assert told["id"] == str(number)
            assert told["outputs"][0]["data"] == [2.0 * number] * 3
    [_] = server.workers()
