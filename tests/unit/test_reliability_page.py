"""Holds docs/reliability.md against the tests: what it names is there, and what is expected to fail
is a known gap."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
PROMISES, _, GAPS = PAGE.read_text(encoding="utf-8").partition("## Known gaps")


def named(text: str) -> set[str]:
    return set(re.findall(r"`([\w/]+\.py::\w+)`", text))


@functools.cache
def written() -> dict[str, ast.FunctionDef]:
    """Every test function, as the page names it. Kept, because parsing all files takes a second."""
    return {
        f"{path.relative_to(TESTS).as_posix()}::{node.name}": node
        for path in TESTS.glob("*/**/test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def expected_to_fail() -> set[str]:
    """Those marked xfail, also by a name that the module gives to such a mark."""
    found = set()
    for name, function in written().items():
        source = (TESTS / name.partition("::")[0]).read_text(encoding="utf-8")
        marks = {"pytest.mark.xfail", *re.findall(r"^(\w+) = pytest\.mark\.xfail", source, re.MULTILINE)}
        decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
        if any(decorator.startswith(tuple(marks)) for decorator in decorators):
            found.add(name)
    return found


@pytest.mark.parametrize("name", sorted(named(PROMISES + GAPS)))
def test_a_named_test_exists(name: str) -> None:
    assert name in written()


def test_every_row_names_a_test() -> None:
    rows = [line for line in (PROMISES + GAPS).splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| promise |", "| fault |", "| --- |"))]
    assert len(rows) > 40
    assert not [row for row in rows if not named(row)]


def test_what_is_expected_to_fail_is_a_known_gap() -> None:
    assert expected_to_fail() == named(GAPS)
