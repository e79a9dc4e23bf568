"""Which answers of joint calls are compared with those of single calls, and what the comparisons prove."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from azureml_inference_server_http.scripting import rows
from azureml_inference_server_http.scripting.batch_checks import (
    REMEMBERED,
    SAMPLED_CALLS,
    Checks,
    Likeness,
    OtherForm,
    digest,
    likeness_of,
)


class Calls:
    """Joint calls of one kind, each with requests that have these first values in their rows."""

    def __init__(self):
        self.checks = Checks()

    def check(self, *requests, result=None, kind="kind"):
        inputs = [[np.array([[value, 0.0] for value in request])] for request in requests]
        counts = list(map(len, requests))
        return self.checks.of(kind, counts, inputs, [0.5] * sum(counts) if result is None else result)

    def agree(self, *requests, **more):
        self.checks.note_agreed(self.check(*requests, **more))


@pytest.fixture
def calls():
    return Calls()


def test_only_calls_that_were_compared_count(calls):
    """A call that failed, or whose comparison did not succeed, has not been checked."""
    for _ in range(5):
        assert calls.check([1], [2]).places == [0, 1]
    calls.agree([1], [2])
    assert calls.check([1], [2]).places == [0, 1]
    calls.agree([1], [2])
    assert calls.check([1], [2]).places == []


def test_requests_of_one_row_are_a_kind_of_their_own(calls):
    for _ in range(2):
        calls.agree([1], [2])
    assert calls.check([1], [2, 3]).places == [0, 1]
    for _ in range(2):
        calls.agree([1], [2, 3])
    assert calls.check([4, 5, 6], [7, 8]).places == []


def test_equal_requests_prove_nothing_about_different_ones(calls):
    """data - data.mean() is the same for equal requests, alone and together."""
    for _ in range(2):
        calls.agree([1], [1], [1])
    assert calls.check([1], [1]).places == []
    assert calls.check([1], [2]).places == [0, 1]


def test_requests_with_the_same_rows_in_another_number_prove_nothing(calls):
    for _ in range(5):
        calls.agree([1, 2], [2, 1])
        calls.agree([1, 1], [1, 1, 1])
    assert calls.check([1, 2], [2, 1]).places == [0, 1]
    assert calls.check([1, 2], [3, 4]).places == [0, 1]


def test_different_requests_prove_the_others_too(calls):
    for _ in range(2):
        calls.agree([1], [2])
    assert calls.check([1], [1]).places == []
    for _ in range(2):
        calls.agree([1, 2], [3, 4])
    assert calls.check([1, 2], [2, 1]).places == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"y": [1, 2]}, {"y": [1, 2], "warnings": ["of A", "of A"]}),
        ({"y": [1, 2]}, {"y": {"a": [1, 2]}}),
        ({1: [1, 2]}, {True: [1, 2]}),
        ([1, 2], (1, 2)),
        (np.ones((2, 3)), np.ones((2, 4))),
        (np.ones(2), np.ones(2, "int64")),
        (pd.get_dummies(pd.Series(["a", "a"])), pd.get_dummies(pd.Series(["a", "b"]))),
        (pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1.0, 2.0]})),
        (pd.Series([1, 2], name="a"), pd.Series([1, 2], name="b")),
    ],
)
def test_a_result_of_another_form_is_no_answer(calls, before, after):
    """The keys of a dict and the columns of a frame belong to all requests, so one request's text could
    be in them."""
    for _ in range(2):
        calls.agree([1], [2], result=before)
    assert calls.check([1], [2], result=before).places == []
    with pytest.raises(OtherForm, match="depend on the values of the rows"):
        calls.check([1], [2], result=after)
    assert calls.check([1], [2], result=after, kind="another").places == [0, 1]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([1, 2], [1.0, 2.0]),
        ([{"y": 1}, {"y": 2}], [{"y": 1}, {"y": 2, "warning": "w"}]),
        ([[1, 2], [3, 4]], [[1, 2, 0], [3, 4, 0]]),
        ({"y": [1, 2]}, {"y": [1, "2"]}),
    ],
)
def test_rows_of_another_form_are_checked(calls, before, after):
    for _ in range(2):
        calls.agree([1], [2], result=before)
    assert calls.check([1], [2], result=before).places == []
    for _ in range(2):
        calls.agree([1], [2], result=after)
    assert calls.check([1], [2], result=after).places == []


def test_texts_of_another_length_are_not_another_form(calls):
    for _ in range(2):
        calls.agree([1], [2], result=np.array(["cat", "dog"]))
    assert calls.check([1], [2], result=np.array(["cat", "mouse"])).places == []


def test_one_answer_of_some_calls_is_compared_later(calls):
    for _ in range(2):
        calls.agree([1], [2])
    compared = [calls.check([1], [2], [3]).places for _ in range(10 * SAMPLED_CALLS)]
    assert [len(places) for places in compared] == ([0] * (SAMPLED_CALLS - 1) + [1]) * 10
    assert {place for places in compared for place in places} <= {0, 1, 2}


def test_memory_does_not_grow_with_what_clients_send(calls):
    long = "x" * 100_000
    for place in range(3 * REMEMBERED):
        calls.agree([1], [2], kind=("name", f"{place}{long}"))
    checks = calls.checks
    assert len(checks._agreed) <= REMEMBERED + 2
    assert len(checks._forms) <= REMEMBERED + 2
    assert sum(map(sys.getsizeof, map(repr, checks._agreed))) < 1_000_000


def test_digests_tell_equal_numbers_of_other_types():
    assert len({digest((value,)) for value in (1, 1.0, True, "1")}) == 4
    assert digest(("a", 1)) == digest(("a", 1))


FRAMES = [pd.DataFrame({"a": [number], "b": ["x"]}) for number in (1, 1, 2)]
TEXTS = [np.array([text], object) for text in ("a" * 3, "".join(["a"] * 3), "b")]


@pytest.mark.parametrize("values", [FRAMES, TEXTS])
def test_likeness_of_frames_and_objects(values):
    first, equal, other = ([value] for value in values)
    assert likeness_of([first, equal]) is Likeness.EQUAL
    assert likeness_of([first, other]) is Likeness.DIFFERENT


def test_contents_tell_types():
    one, true = np.array([1], object), np.array([True], object)
    assert rows.contents(one) != rows.contents(true)
