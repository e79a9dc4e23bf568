"""Which scripts and requests one call of run() answers together, and when a worker stops to do that."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from joining import NUMPY, arguments, join
from loading import load

from azureml_inference_server_http.scripting import signature, worker_threads
from azureml_inference_server_http.scripting.batch_checks import Likeness
from azureml_inference_server_http.scripting.joint_calls import USELESS_CALLS

DOUBLE = (
    NUMPY
    + """
@input_schema("data", N(np.array([[1.0, 2.0]])))
def run(data, factor=2):
    return (data * factor).tolist()
"""
)


def test_waiting_requests_share_a_call(batches_of):
    script, batches = batches_of(DOUBLE)
    (joint,) = join(batches, [arguments(script, {"data": rows}) for rows in ([[1, 2]], [[3, 4], [5, 6]])])
    assert (joint.places, joint.rows) == ([0, 1], [1, 2])
    assert joint.arguments["data"].tolist() == [[1, 2], [3, 4], [5, 6]]
    split = batches.split(joint, script.run(**joint.arguments))
    assert split == ([[[2.0, 4.0]], [[6.0, 8.0], [10.0, 12.0]]], [0, 1])


@pytest.mark.parametrize(
    "others",
    [
        [{"data": [[1, 2]], "factor": 1}, {"data": [[1, 2]], "factor": 2}],
        [{"data": [[1, 2]], "factor": 1}, {"data": [[1, 2]], "factor": 1.0}],
        [{"data": [[1, 2]], "factor": 1}, {"data": [[1, 2]], "factor": True}],
        [{"data": [[1, 2]], "factor": [7]}, {"data": [[1, 2]], "factor": [7]}],
        [{"data": [[1, 2]]}, {"data": []}],
        [{"data": [[1, 2]]}, {"data": [[1, 2, 3]]}],
        [{"data": [[1, 2]]}, {"data": "text"}],
        [{"data": [[1, 2]]}, None],
    ],
)
def test_requests_that_get_calls_of_their_own(batches_of, others):
    script, batches = batches_of(DOUBLE)
    assert join(batches, [values and arguments(script, values) for values in others]) == []


def test_requests_of_several_kinds_make_a_call_for_each(batches_of):
    script, batches = batches_of(DOUBLE)
    kinds = [1, 2, 1, 2, 3]
    joints = join(batches, [arguments(script, {"data": [[1, 2]], "factor": kind}) for kind in kinds])
    assert [(joint.places, joint.arguments["factor"]) for joint in joints] == [([0, 2], 1), ([1, 3], 2)]


def test_a_failed_call_leaves_the_arguments_of_single_calls_alone(batches_of):
    script, batches = batches_of(DOUBLE)
    given = [arguments(script, {"data": [[1, 2]]}) for _ in range(2)]
    join(batches, given)
    assert [type(each["data"]) for each in given] == [list, list]


def test_request_headers_have_to_be_equal(batches_of):
    script, batches = batches_of(DOUBLE.replace("factor=2", "request_headers, factor=2"))
    given = [arguments(script, {"data": [[1, 2]]}, tenant=tenant) for tenant in ("a", "b", "a")]
    assert [joint.places for joint in join(batches, given)] == [[0, 2]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def init(): pass\ndef run(data): return data", "not decorated with @input_schema"),
        (
            NUMPY + '@input_schema("data", P([1.0]))\ndef run(data): return data',
            "no parameter has a NumpyParameterType",
        ),
        (
            NUMPY + '@input_schema("data", N(np.ones(2)), optional=True)\ndef run(data=None): return data',
            "data is optional",
        ),
        (
            NUMPY + '@input_schema("data", N(np.ones(2)), convert_to_provided_type=False)\ndef run(data): return data',
            "does not convert the input",
        ),
        (
            NUMPY + '@input_schema("data", P({"x": N(np.ones(2))}))\ndef run(data): return data',
            "inside of another object",
        ),
        (
            NUMPY + "class Own(N): pass\n" + '@input_schema("data", Own(np.ones(2)))\ndef run(data): return data',
            "inside of another object",
        ),
        (
            NUMPY
            + "import functools\ndef seen(f): return functools.wraps(f)(lambda **k: f(**k))\n"
            + '@seen\n@input_schema("data", N(np.ones(2)))\ndef run(data): return data',
            "a decorator outside of @input_schema",
        ),
        (
            NUMPY + '@input_schema("data", N(np.ones(2)))\nasync def run(data): return data',
            "it is async",
        ),
    ],
)
def test_scripts_whose_calls_are_not_joined_say_why(batches_of, text, reason):
    _, said = batches_of(text)
    assert said.startswith("--max_batch_size has no effect, because calls of run() cannot be joined: ")
    assert reason in said
    assert "@batched" in said


def test_without_the_option_each_request_gets_a_call_of_its_own(batching_settings, log):
    batching_settings.max_batch_size = 1
    batching_settings.origins["batch_wait_ms"] = SimpleNamespace(kind="default")
    assert load(batching_settings, DOUBLE).batches() is None
    batching_settings.origins["batch_wait_ms"] = SimpleNamespace(kind="option")
    assert load(batching_settings, DOUBLE).batches() is None
    assert [text for level, _, text in log() if level == "W"] == [
        "--batch_wait_ms has no effect without --max_batch_size."
    ]


def warnings(log):
    return [text for level, _, text in log() if level == "W"]


def test_results_in_a_row_that_cannot_be_split_end_joint_calls_and_are_told_once(batches_of, log):
    script, batches = batches_of(DOUBLE)
    given = [arguments(script, {"data": [[1, 2]]}) for _ in range(2)]
    (joint,) = join(batches, given)
    for result in [{"error": "text"}] * 4 + [[[1, 2], [3, 4]]] + [{"mean": 1.5}] * 4:
        batches.split(joint, result)
    assert batches.are_possible, "a client has no way to end joint calls with one request"
    assert batches.split(joint, {"mean": 1.5}) is None
    assert batches.split(joint, {"mean": 1.5}) is None
    assert join(batches, given) == []
    assert not batches.are_possible
    (text,) = warnings(log)
    assert "$['mean'] is of type float, which has no rows" in text
    assert "@batched" in text


def test_a_result_with_another_key_than_before_answers_no_request(batches_of):
    """The texts of one request must not get into the answer to another one."""
    script, batches = batches_of(DOUBLE)
    given = [arguments(script, {"data": [[value, 2]]}) for value in (1, 2)]
    for _ in range(2):
        (joint,) = join(batches, given)
        assert batches.split(joint, {"y": [1, 2]}).checked == [0, 1]
        batches.note_agreed(joint)
    (joint,) = join(batches, given)
    assert batches.split(joint, {"y": [1, 2]}) == ([{"y": [1]}, {"y": [2]}], [])
    assert batches.split(joint, {"y": [1, 2], "warnings": ["of 1", "of 1"]}) is None


def test_a_call_that_answers_otherwise_than_single_calls_ends_joint_calls(batches_of, log):
    _, batches = batches_of(DOUBLE)
    assert batches.compare(200, b"[1.0]", 200, b"[1.0]")
    assert batches.compare(200, b"[1.0]", 200, b"[1.0000001]")
    assert batches.are_possible
    assert not batches.compare(200, b"[1.0]", 200, b"[0.5]")
    assert not batches.are_possible
    (text,) = warnings(log)
    assert "something else for a request alone" in text


def test_two_failures_are_not_the_same_answer(batches_of):
    _, batches = batches_of(DOUBLE)
    assert not batches.compare(500, b"failed", 500, None)
    assert batches.are_possible


@pytest.mark.parametrize("alone", [(500, b"[1.0]"), (200, None)])
def test_another_status_or_a_stream_does_not_agree(batches_of, alone):
    _, batches = batches_of(DOUBLE)
    batches.compare(*alone, 200, b"[1.0]")
    assert not batches.are_possible


def test_failures_for_which_no_request_is_to_blame_end_joint_calls(batches_of, log):
    _, batches = batches_of(DOUBLE)
    for failed in (0, 0, 0, 0, 1, 0, 0, 0, 0):
        batches.note_failure(ValueError("one row at a time"), failed)
    assert batches.are_possible
    batches.note_failure(ValueError("one row at a time"), 0)
    assert not batches.are_possible
    (text,) = warnings(log)
    assert "ValueError: one row at a time" in text


def test_flask_ends_joint_calls(batches_of, log):
    _, batches = batches_of(DOUBLE)
    batches.note_flask()
    assert not batches.are_possible
    assert "Flask" in warnings(log)[0]


def test_calls_of_each_kind_are_checked_until_two_have_agreed(batches_of):
    script, batches = batches_of(DOUBLE)

    def is_checked(count, factor, agrees=True):
        given = [arguments(script, {"data": [[value, 2]] * count, "factor": factor}) for value in (1, 2)]
        (joint,) = join(batches, given)
        checked = batches.split(joint, script.run(**joint.arguments)).checked
        if agrees:
            batches.note_agreed(joint)
        return bool(checked)

    assert [is_checked(1, 1, agrees=False) for _ in range(3)] == [True, True, True]
    assert [is_checked(1, 1) for _ in range(3)] == [True, True, False]
    assert [is_checked(1, 2) for _ in range(3)] == [True, True, False]
    assert [is_checked(count, 1) for count in (2, 3, 4, 1)] == [True, True, False, False]


def test_a_run_that_changes_its_input_does_not_make_requests_look_equal(batches_of):
    script, batches = batches_of(DOUBLE.replace("return", "data[:] = 1\n    return"))
    (joint,) = join(batches, [arguments(script, {"data": [[value, 2]]}) for value in (1, 2)])
    batches.split(joint, script.run(**joint.arguments))
    assert {likeness for _, likeness in joint.check.proves} == {Likeness.DIFFERENT}


def test_a_large_body_is_joined_from_arrays_that_rust_has_made(batches_of):
    script, batches = batches_of(DOUBLE)
    values = [{"data": np.arange(4000.0).reshape(-1, 2).tolist()}, {"data": [[1.0, 2.0]]}]
    given = [arguments(script, value) for value in values]
    assert [type(each["data"]) for each in given] == [np.ndarray, list]
    (joint,) = join(batches, given)
    assert joint.rows == [2000, 1]


def test_signatures_know_the_parameters(batches_of):
    script, batches = batches_of(DOUBLE)
    assert signature.read(script.plain_run).parameters == script.parameters
    assert batches.most == 8
    assert batches.wait == 0
    assert batches.adapts


# Scripts that ask for batches

ASKED = """
from azureml_inference_server_http.api import batched
def init(): pass
@batched(max_size=4, max_wait_ms=20)
def run(data):
    return [ValueError(text) if text == "bad" else text.upper() for text in data]
"""
ASKED_WITH_SCHEMA = (
    NUMPY
    + """
from azureml_inference_server_http.api import batched
@input_schema("scale", P(1.5))
@input_schema("data", N(np.array([[1.0, 2.0]])))
@output_schema(N(np.array([1.0])))
@batched
def run(data, scale=2.0):
    return [rows * each for rows, each in zip(data, scale)]
"""
)


def test_a_run_that_asks_for_batches_gets_lists(batches_of):
    script, batches = batches_of(ASKED)
    assert (batches.most, batches.wait, batches.adapts) == (4, 0.02, False)
    given = [arguments(script, text.encode()) for text in ("a", "bad", "c")]
    (joint,) = join(batches, given)
    assert (joint.places, joint.arguments) == ([0, 1, 2], {"data": ["a", "bad", "c"]})
    (first, second, third), checked = batches.split(joint, batches.run(**joint.arguments))
    assert checked == []
    assert (first, third) == ("A", "C")
    assert isinstance(second, ValueError)
    # Alone, a request is answered in the same way.
    assert script.run(**given[0]) == "A"
    with pytest.raises(ValueError, match="bad"):
        script.run(**given[1])


def test_with_a_schema_the_lists_have_converted_values(batches_of):
    script, batches = batches_of(ASKED_WITH_SCHEMA)
    given = [
        arguments(script, {"data": [[1, 2]], "scale": 2.0}),
        arguments(script, {"data": [[3, 4], [5, 6]], "scale": 10}),
        arguments(script, {"data": "wrong"}),
    ]
    (joint,) = join(batches, given)
    assert joint.places == [0, 1]
    parts = batches.split(joint, batches.run(**joint.arguments)).parts
    assert [part.tolist() for part in parts] == [[[2.0, 4.0]], [[30.0, 40.0], [50.0, 60.0]]]
    assert [script.run(**given[place]).tolist() for place in (0, 1)] == [part.tolist() for part in parts]


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("data[:1]", "returned 1 results for 2 inputs"),
        ("data[0]", "in the order of the inputs. It returned str"),
        ("5", "in the order of the inputs. It returned int"),
    ],
)
def test_results_that_are_not_one_for_each_input_end_joint_calls(batches_of, log, returned, reason):
    script, batches = batches_of(ASKED.replace("return [", f"return {returned} if len(data) > 1 else ["))
    (joint,) = join(batches, [arguments(script, text) for text in (b"a", b"b")])
    for _ in range(USELESS_CALLS):
        assert batches.are_possible
        assert batches.split(joint, batches.run(**joint.arguments)) is None
    assert not batches.are_possible
    assert reason in warnings(log)[-1]


def test_another_decorator_around_batched_is_told(batches_of):
    other = "import functools\ndef other(f): return functools.wraps(f)(lambda **k: f(**k))\n@other\n@batched("
    _, said = batches_of(ASKED.replace("@batched(", other))
    assert said.startswith("@batched has no effect, and run() gets lists of one input: another decorator is around it")


@pytest.mark.parametrize("around", ["", "@other\n"])
def test_batched_with_worker_threads_is_refused_and_nothing_else_is_said(batching_settings, log, around):
    other = "import functools\ndef other(f): return functools.wraps(f)(lambda **k: f(**k))\n"
    script = load(batching_settings, other + ASKED.replace("@batched(", f"{around}@batched("))
    with pytest.raises(worker_threads.CannotUseThreads, match=r"decorated with @batched.*: leave out one of the two"):
        worker_threads.check(script)
    assert [message for level, _, message in log() if level == "W"] == []


def test_options_that_do_not_fit_batched_are_told(batching_settings, log):
    batching_settings.max_batch_size = 1
    batching_settings.max_concurrency = 3
    assert load(batching_settings, ASKED).batches() is not None
    assert warnings(log) == []
    batching_settings.max_batch_size = 8
    assert load(batching_settings, ASKED.replace("def run", "async def run")).batches() is None
    few, unused = warnings(log)
    assert few.startswith("@batched(max_size=4) gets 3 requests at most")
    assert unused.startswith("--max_batch_size and --batch_wait_ms have no effect, because run() is decorated with")
