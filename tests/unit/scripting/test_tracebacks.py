"""Tracebacks as users see them (``scripting/tracebacks.py``)."""

from __future__ import annotations

import sys

import pytest

from azureml_inference_server_http.scripting import tracebacks


# What json does since Python 3.14 for a list that is nested too deeply.
@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have notes since Python 3.11")
@pytest.mark.parametrize("has_cause", [False, True])
def test_an_exception_with_many_notes_is_shown_with_some(has_cause):
    error = RecursionError("too deep")
    error.__notes__ = [f"when serializing list item {index}" for index in range(1000)]
    text = tracebacks.caused(ValueError("failed"), error) if has_cause else tracebacks.text_of(error)
    shown = [line for line in text.splitlines() if "serializing" in line or "more" in line]
    items = [*range(10), *range(990, 1000)]
    expected = [f"when serializing list item {index}" for index in items]
    assert shown == [*expected[:10], "(980 more notes)", *expected[10:]]


def test_an_exception_with_few_notes_keeps_them():
    notes = ["note"] * tracebacks.MOST_NOTES
    tracebacks.shorten_notes(notes)
    assert notes == ["note"] * tracebacks.MOST_NOTES
    tracebacks.shorten_notes(None)
