"""Comparing answers: with the expected one, or two of the same server.

Owns when two JSON values count as equal (numbers within tolerances, without the parts that JSON paths leave out), and
how a difference is told. Pure functions.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .json_paths import Path, Pattern, is_matched
from .samples import Expected

# How many differences a message lists, and how long a shown value may be.
MOST_SHOWN = 5
LONGEST_VALUE = 60


class Tolerance(NamedTuple):
    """Numbers are equal if they differ by at most ``absolute + relative * |expected|``."""

    relative: float = 1e-9
    absolute: float = 0.0


class Difference(NamedTuple):
    """Where two answers differ, and what each has there."""

    path: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, got {self.actual}"


class Answer(NamedTuple):
    """What came back for a sample; ``headers`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)


def counted(number: int, what: str) -> str:
    """``1 item`` or ``2 items``."""
    return f"{number} {what}{'s' * (number != 1)}"


def differences(expected: Any, actual: Any, tolerance: Tolerance, ignored: Iterable[Pattern] = ()) -> list[Difference]:
    """Every place where two JSON values differ."""
    return list(_compare(expected, actual, tolerance, tuple(ignored), ()))


def _compare(
    expected: Any, actual: Any, tolerance: Tolerance, ignored: tuple[Pattern, ...], path: Path
) -> Iterator[Difference]:
    if any(is_matched(path, pattern) for pattern in ignored):
        return
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key in [*expected, *(key for key in actual if key not in expected)]:
            below = (*path, key)
            if key in expected and key in actual:
                yield from _compare(expected[key], actual[key], tolerance, ignored, below)
            elif not any(is_matched(below, pattern) for pattern in ignored):
                has, value = ("expected", expected[key]) if key in expected else ("actual", actual[key])
                shown = _shown(value)
                yield Difference(_written(below), *((shown, "nothing") if has == "expected" else ("nothing", shown)))
    elif isinstance(expected, list) and isinstance(actual, list):
        for index, (one, other) in enumerate(zip(expected, actual)):
            yield from _compare(one, other, tolerance, ignored, (*path, index))
        if len(expected) != len(actual):
            yield Difference(_written(path), counted(len(expected), "item"), counted(len(actual), "item"))
    elif not _are_equal(expected, actual, tolerance):
        yield Difference(_written(path), _shown(expected), _shown(actual))


def _are_equal(expected: Any, actual: Any, tolerance: Tolerance) -> bool:
    numbers = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in (expected, actual)]
    if not all(numbers):
        return type(expected) is type(actual) and bool(expected == actual)
    if expected == actual:
        return True
    if any(isinstance(value, float) and not math.isfinite(value) for value in (expected, actual)):
        return isinstance(expected, float) and isinstance(actual, float) and math.isnan(expected) and math.isnan(actual)
    try:
        return bool(abs(actual - expected) <= tolerance.absolute + tolerance.relative * abs(expected))
    except OverflowError:  # integers too large for a float, which are not equal
        return False


def with_expected(
    expected: Expected, answer: Answer, tolerance: Tolerance, ignored: Iterable[Pattern] = ()
) -> list[Difference]:
    """Where an answer differs from the expected one."""
    patterns = (*ignored, *expected.ignore)
    found: list[Difference] = []
    if expected.status is not None and answer.status != expected.status:
        found.append(Difference("status", str(expected.status), str(answer.status)))
    for name, value in expected.headers.items():
        actual = answer.headers.get(name.lower())
        if actual != value:
            found.append(Difference(f"header {name}", repr(value), "none" if actual is None else repr(actual)))
    if expected.has_body:
        found += _bodies(expected.body, expected.is_json, answer, tolerance, patterns)
    return found


def between(first: Answer, second: Answer, tolerance: Tolerance, ignored: Iterable[Pattern] = ()) -> list[Difference]:
    """Where the second of two answers to equal requests differs from the first. Headers are not compared, as each
    answer has ids and times of its own."""
    if first.status != second.status:
        return [Difference("status", str(first.status), str(second.status))]
    try:
        body, is_json = first.json(), True
    except ValueError:
        body, is_json = first.body, False
    return _bodies(body, is_json, second, tolerance, tuple(ignored))


def _bodies(
    expected: Any, is_json: bool, answer: Answer, tolerance: Tolerance, ignored: tuple[Pattern, ...]
) -> list[Difference]:
    if not is_json:
        return [] if expected == answer.body else [Difference("body", _bytes(expected), _bytes(answer.body))]
    try:
        actual = answer.json()
    except ValueError:
        return [Difference("body", _shown(expected), f"{_bytes(answer.body)}, which is no JSON")]
    return differences(expected, actual, tolerance, ignored)


def told(found: list[Difference]) -> str:
    """The differences in one sentence each, the first few of them."""
    more = [f"and {len(found) - MOST_SHOWN} more"] if len(found) > MOST_SHOWN else []
    return "; ".join([*map(str, found[:MOST_SHOWN]), *more])


def _written(path: Path) -> str:
    steps = (
        f"[{step}]" if isinstance(step, int) else f".{step}" if re.fullmatch(r"[\w-]+", step) else f"[{step!r}]"
        for step in path
    )
    return "$" + "".join(steps)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."


def _bytes(body: bytes) -> str:
    shown = repr(body[:LONGEST_VALUE])[1:]
    return shown if len(body) <= LONGEST_VALUE else f"{shown}... ({counted(len(body), 'byte')})"
