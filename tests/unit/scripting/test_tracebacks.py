"""Tracebacks as users see them (``scripting/tracebacks.py``)."""

from __future__ import annotations

import contextlib
import sys
import traceback

import pytest

from azureml_inference_server_http.scripting import tracebacks

has_notes = pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have notes since Python 3.11")


def too_deep(count: int = 1000) -> RecursionError:
    """What json raises since Python 3.14 for a list that is nested too deeply."""
    error = RecursionError("too deep")
    error.__notes__ = notes(range(count))
    return error


def notes(items) -> list[str]:
    return [f"when serializing list item {index}" for index in items]


def shown_notes(text: str) -> list[str]:
    """The lines of notes, without the bars that mark the members of a group."""
    return [line.strip(" |") for line in text.splitlines() if "serializing" in line or "more notes" in line]


def thrown(error: BaseException) -> BaseException:
    """The exception with a traceback."""
    with contextlib.suppress(type(error)):
        raise error
    return error


def as_itself(error: BaseException) -> BaseException:
    return error


def as_context(error: BaseException) -> BaseException:
    failure = thrown(ValueError("instead of it"))
    failure.__context__ = error
    return failure


def as_cause(error: BaseException) -> BaseException:
    failure = ValueError("because of it")
    failure.__cause__ = error
    return failure


def as_deep_cause(error: BaseException) -> BaseException:
    return as_cause(as_cause(as_context(error)))


def in_a_group(error: BaseException) -> BaseException:
    return as_cause(ExceptionGroup("several", [KeyError("other"), error]))  # noqa: F821  (since Python 3.11)


@has_notes
@pytest.mark.parametrize("place", [as_itself, as_context, as_cause, as_deep_cause, in_a_group])
@pytest.mark.parametrize("looks", [1, 2])
def test_an_exception_with_many_notes_is_shown_with_some(place, looks):
    error = too_deep()
    failed = place(error)
    for _ in range(looks):
        text = tracebacks.caused(ValueError("failed"), failed)
        assert shown_notes(text) == [*notes(range(10)), "(980 more notes)", *notes(range(990, 1000))]
    assert error.__notes__ == notes(range(1000)), "the script's exception keeps its notes"


@has_notes
def test_the_end_of_a_text_has_some_notes():
    error = too_deep()
    lines = tracebacks.ending_of(error).splitlines()
    assert lines == ["RecursionError: too deep", *notes(range(10)), "(980 more notes)", *notes(range(990, 1000))]
    assert len(error.__notes__) == 1000


@has_notes
@pytest.mark.parametrize("count", [0, 1, tracebacks.MOST_NOTES])
def test_an_exception_with_few_notes_is_shown_with_all(count):
    assert shown_notes(tracebacks.text_of(too_deep(count))) == notes(range(count))


@has_notes
@pytest.mark.parametrize("value", [None, "a text " * 10, 7, {"a": 1}, tuple(notes(range(1000)))])
def test_notes_that_are_no_list_are_shown_as_python_does(value):
    error = too_deep()
    error.__notes__ = value
    shown = shown_notes(tracebacks.text_of(error))
    if isinstance(value, tuple):
        assert shown == [*notes(range(10)), "(980 more notes)", *notes(range(990, 1000))]
    else:
        assert tracebacks.text_of(error) == "".join(traceback.format_exception(type(error), error, None))


@pytest.mark.parametrize("place", [as_itself, as_context, as_cause, as_deep_cause])
@pytest.mark.parametrize("error", [KeyError("a"), SyntaxError("bad", ("file.py", 1, 1, "1 +")), SystemExit(1)])
def test_an_ordinary_exception_is_shown_as_python_does(place, error):
    failed = thrown(place(thrown(error)))
    assert tracebacks.text_of(failed) == "".join(traceback.format_exception(type(failed), failed, failed.__traceback__))
    assert tracebacks.ending_of(failed) == "".join(traceback.format_exception_only(type(failed), failed)).strip()
