"""Which tests share a parallel test process."""

from __future__ import annotations

import pytest

scheduling = pytest.importorskip("scheduling", reason="pytest-xdist is not installed")


def test_tests_that_share_servers_share_a_process():
    names = [
        "e2e/test_a.py::test_one[thread-3]",
        "e2e/test_a.py::test_two[thread]",
        "e2e/test_a.py::Class::test[thread-x]",
    ]
    assert {scheduling.group(name) for name in names} == {"e2e/test_a.py-thread"}


def test_others_do_not():
    names = [
        "e2e/test_a.py::test_one[thread]",
        "e2e/test_a.py::test_one[process]",
        "e2e/test_a.py::test_one",
        "e2e/test_b.py::test_one[thread]",
    ]
    assert len({scheduling.group(name) for name in names}) == 4


def test_any_other_parameter_does_not_count():
    names = ["unit/test_a.py::test_one[threads-1]", "unit/test_a.py::test_one[1-process]", "unit/test_a.py::test_two"]
    assert {scheduling.group(name) for name in names} == {"unit/test_a.py"}
