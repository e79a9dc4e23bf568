"""Arrays that are read straight from JSON bodies, beside those that inference-schema makes of the
same bodies.

A content type with parameters always takes the general way: ``json.loads``, then ``numpy.array``.
So each document is sent twice, and the replies, error texts included, have to be the same.
``scripts/arrays.py`` tells which way it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from harness import Connection, Response
from hypothesis import given, note
from hypothesis import strategies as st

from . import documents
from .test_against_python import SHORT

# Small bodies always go the general way; spaces make any body large.
PADDING = b" " * 16 * 1024
TYPES = ("float64", "float32", "int64", "int32", "uint8")
PLAIN = {**dict.fromkeys(TYPES, "[1]"), "rows": "[[1, 2, 3]]"}


@pytest.fixture
def client(shared: Any) -> Iterator[Connection]:
    with shared("arrays.py", "--error_details", AZUREML_LOG_LEVEL="CRITICAL").connect() as client:
        yield client


def body_of(**values: str) -> bytes:
    """A document with these values, as they are written, and plain numbers for the other
    parameters."""
    members = (f'"{name}": {value}' for name, value in {**PLAIN, **values}.items())
    return f"{{{', '.join(members)}}}".encode("utf-8", "surrogatepass")


def both_ways(client: Connection, body: bytes) -> int | None:
    """Send the document both ways, and check that the replies are equal. Returns how many arrays
    were read natively; None if it was refused."""
    straight, general = (
        client.exchange("POST", "/score", body + PADDING, {"Content-Type": content_type})
        for content_type in ("application/json", "application/json; charset=utf-8")
    )
    assert described(straight) == described(general)
    if straight.status != 200:
        return None
    assert general.json()["made"] == 0
    made: int = straight.json()["made"]
    return made


def described(response: Response) -> Any:
    content = response.json()
    content.pop("made", None)
    return response.status, response["x-ms-run-function-failed"], json.dumps(content)  # NaN is not equal to itself


def draw_leaf(random: Random, kind: str) -> str:
    if random.randrange(60) == 0:
        return random.choice((documents.draw_leaf, documents.draw_number, documents.draw_float_text))(random)
    if kind.startswith("float") and random.randrange(3):
        return documents.draw_float_text(random)
    bits = 8 * random.choice((1, 2, 4, 8)) if kind.startswith("float") else int(kind.lstrip("uint"))
    number = random.getrandbits(random.randrange(1, bits + 1))
    return str(number if kind == "uint8" else number - 2 ** (bits - 1))


def draw_array(random: Random, kind: str, shape: list[int]) -> str:
    if not shape:
        return draw_leaf(random, kind)
    length = shape[0] if random.randrange(60) else random.randrange(4)
    spaces = [documents.draw_space(random) for _ in range(3)]
    items = [draw_array(random, kind, shape[1:]) for _ in range(length)]
    return f"[{spaces[0]}{f'{spaces[1]},{spaces[2]}'.join(items)}{spaces[1]}]"


def draw_body(random: Random) -> bytes:
    values = {
        kind: draw_array(random, kind, [random.randrange(1, 5) for _ in range(random.choice((1, 1, 2, 2, 3, 5)))])
        for kind in random.sample(TYPES, random.randrange(1, 3))
    }
    if random.randrange(4) == 0:
        values["rows"] = draw_array(random, "float64", [random.randrange(1, 4), 3])
    if random.randrange(4) == 0:
        values["other"] = documents.draw_value(random, 2)
    body = body_of(**values)
    return documents.mutate(random, body) if random.randrange(8) == 0 else body


def test_arrays_that_hypothesis_chooses(client: Connection) -> None:
    seen = set()

    @SHORT
    @given(st.randoms(use_true_random=False))
    def try_one(random: Any) -> None:
        body = draw_body(random)
        note(repr(body))
        seen.add(both_ways(client, body))

    try_one()
    assert {0, len(PLAIN)} <= seen


def test_many_random_arrays(client: Connection) -> None:
    random = Random(20240229)
    ways = [both_ways(client, draw_body(random)) for _ in range(600)]
    assert ways.count(len(PLAIN)) > 200
    assert ways.count(0) > 20
    assert ways.count(None) > 20


@pytest.mark.parametrize("kind", TYPES)
def test_single_numbers(client: Connection, kind: str) -> None:
    """The limits of all types, numbers beside them, and texts that Python reads in an unexpected
    way."""
    for text in (
        *("0", "-0", "0.0", "-0.0", "1e2", "-1", "1.5", "true", "null", '"1"', "[1]", "NaN", "Infinity", "-Infinity"),
        *("255", "256", "16777217", "2147483647", "2147483648", "-2147483648", "-2147483649", "9007199254740993"),
        *("9007199791611905", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" * 4301),
        *("1.00000005960464477540", "3.4028235e38", "3.4028235677973366e38", "1e39", "1e-46", "1e400", "2e-324"),
        *documents.NEARLY,
    ):
        both_ways(client, body_of(**{kind: f"[{text}]"}))


def test_nesting_of_arrays(client: Connection) -> None:
    for depth, made in ((1, 6), (32, 6), (33, 0), (64, 0), (65, None), (150, None), (5000, None)):
        assert both_ways(client, body_of(float64="[" * depth + "1" + "]" * depth)) == made


def test_every_cut_of_a_body(client: Connection) -> None:
    body = body_of(float64="[-1.5e+3, 2]", rows="[[1, 2, 3], [4, 5.5, 6]]", other='["\\"]", {"a": [1]}]')
    assert both_ways(client, body) == len(PLAIN)
    for end in range(len(body)):
        both_ways(client, body[:end])


@pytest.mark.parametrize("encoding", documents.ENCODINGS)
def test_encodings_of_arrays(client: Connection, encoding: str) -> None:
    text = body_of(other='"é"').decode()
    both_ways(client, (text + " " * len(PADDING)).encode(encoding))
