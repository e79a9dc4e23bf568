"""Random results of run(), of every type that it may return, and what ``json.dumps`` makes of them.

Owns the values and the expected bodies. ``plain`` states once more, on its own, which values beyond
JSON's the server renders (numpy, pandas, times, dataclasses); everything else is ``json.dumps``.
Runs in the test process.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import math
import struct
import sys
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd

sys.path.append(str(Path(__file__).parent / "scripts"))

import fuzz_shapes as shapes

ALPHABETS = (
    "abcXYZ 019_-/<>&'",
    '"\\\b\f\n\r\t/',
    "".join(map(chr, range(0x20))) + "\x7f\x80\x9f",
    "éßÿ\xa0\xad",
    "€中\u2028\u2029\ufeff\ufffd\uffff\ue000",
    "😀𝄞\U00010000\U0010ffff",
    "\ud800\udbff\udc00\udfff",
)
KEYS = ("a", "b", "data", "prediction", "", "é", '"', "\x7f", "1", "true", "null", "NaN", "\ud800")
# From this depth on a result may exceed the recursion limit, which depends on the number of frames
# on the stack.
DEEP = 400
# Frames by which the stacks of a worker and of the test process may differ; see `outcomes`.
FRAMES = 150

_UTC = datetime.timezone.utc
CONVERTED: tuple[Any, ...] = (
    datetime.date(2024, 2, 29),
    datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
    datetime.datetime(2024, 2, 29, tzinfo=_UTC),
    datetime.time(1, 2, 3, tzinfo=_UTC),
    datetime.timedelta(days=-1, microseconds=1),
    shapes.Point(1, [datetime.date(1, 1, 1), None]),
    np.float64(0.1),
    np.float32(0.1),
    np.float16(1e-7),
    np.longdouble(0.1),
    np.int8(-128),
    np.int64(2**63 - 1),
    np.uint64(2**64 - 1),
    np.bool_(True),
    np.str_("é"),
    np.float64("nan"),
    np.datetime64("2024-02-29T01:02:03"),
    np.datetime64("NaT"),
    np.timedelta64(1500, "ms"),
    np.timedelta64("NaT"),
    np.array([[1, 2], [3, 4]], dtype=np.int32),
    np.array([0.1, -0.0, math.nan, math.inf], dtype=np.float32),
    np.array([]),
    np.array(5),
    np.array(["a", "é"]),
    np.array([None, 1, "x"], dtype=object),
    np.array(["2024-02-29", "NaT"], dtype="datetime64[ns]"),
    pd.Timestamp("2024-02-29 01:02:03.000004"),
    pd.Timedelta("1 day 1 us"),
    pd.NaT,
    pd.NA,
    pd.Period("2024-02"),
    pd.Interval(0, 1.5),
    pd.Series([1, 2]),
    pd.Series([0.5, math.nan]),
    pd.Series(["a", None]),
    pd.Index(["x", "y"]),
    pd.Series([1, None], dtype="Int64"),
    pd.DataFrame({"a": [1, 2], "b": [0.5, math.nan]}),
)
CONVERTED_KEYS: tuple[Any, ...] = (np.int64(7), np.bool_(False), datetime.date(2024, 2, 29), np.datetime64("2024"))
REFUSED: tuple[Any, ...] = (
    b"bytes",
    bytearray(b"x"),
    {1, 2},
    frozenset(),
    1j,
    range(3),
    decimal.Decimal("1.5"),
    Ellipsis,
    NotImplemented,
    int,
    len,
    shapes.Plain.ONE,
    shapes.Opaque(),
    ValueError("no"),
    np.complex64(1j),
    np.array([1j]),
    np.bytes_(b"x"),
    shapes.Point,
)
REFUSED_KEYS: tuple[Any, ...] = ((1, 2), b"k", frozenset(), shapes.Plain.ONE, decimal.Decimal(1), 1j)


def draw(random: Random, large: bool) -> Any:
    """Draw a result. Without ``large`` it is small enough for hypothesis to minimise."""
    kind = random.randrange(60)
    if kind == 59:
        return draw_nested(random)
    if kind == 58 and large:
        return _draw_many(random)
    return _Drawing(random, large).value(0)


def draw_nested(random: Random) -> shapes.Nested:
    depth = random.choice((5, 99, 100, 101, 102, 200, 255, 256, 300, 700, 850, 940, 990, 1100, 1700))
    kinds = "".join(random.choices("lltdLD", k=random.randrange(1, 4)))
    return shapes.Nested(depth, kinds, draw_scalar(random))


def _draw_many(random: Random) -> list[Any]:
    one = random.choice((draw_float, draw_int, draw_usual, draw_usual_text))
    return [one(random) for _ in range(random.choice((10, 300, 3000)))]


class _Drawing:
    """One random value; remembers the containers in it, which may occur again further on."""

    def __init__(self, random: Random, large: bool) -> None:
        self.random = random
        self.large = large
        self.made: list[Any] = []
        # One unusual value anywhere makes the server leave the whole result to Python, so most
        # results have none.
        self.is_usual = random.randrange(3) < 2
        self.has_converted = not self.is_usual and random.randrange(2) == 1
        self.has_refused = not self.is_usual and random.randrange(4) == 3
        self.has_circles = random.randrange(40) == 39

    def value(self, depth: int) -> Any:
        random = self.random
        if depth > 5 or random.randrange(10) < 4:
            return self.leaf()
        if self.made and random.randrange(12) == 11:
            return random.choice(self.made)
        value = self.container(depth)
        if self.has_circles and type(value) in (list, dict, shapes.Record) and random.randrange(4) == 3:
            circle = [value] if random.randrange(2) else value
            if isinstance(value, list):
                value.append(circle)
            else:
                value["circle"] = circle
        self.made.append(value)
        return value

    def leaf(self) -> Any:
        if self.has_refused and self.random.randrange(6) == 5:
            return self.random.choice(REFUSED)
        if self.has_converted and self.random.randrange(3) == 2:
            return self.random.choice(CONVERTED)
        return self.scalar()

    def scalar(self) -> Any:
        longest = 400 if self.large and self.random.randrange(60) == 59 else 12
        return draw_usual(self.random, longest) if self.is_usual else draw_scalar(self.random)

    def container(self, depth: int) -> Any:
        random = self.random
        kind = random.choice((0, 1, 3, 7, 8)) if self.is_usual else random.randrange(13)
        if kind < 7:
            items = [self.value(depth + 1) for _ in range(random.randrange(5))]
            if kind == 6:
                return shapes.Pair(items, self.value(depth + 1))
            return (list, list, list, tuple, shapes.Items, shapes.Row)[kind](items)
        pairs = [(self.key(), self.value(depth + 1)) for _ in range(random.randrange(5))]
        if kind < 10:
            return dict(pairs)
        if kind == 10:
            return OrderedDict(pairs)
        if kind == 11:
            return shapes.Record(pairs)
        return random.choice((defaultdict(list, pairs), Counter({"x": random.randrange(9), 1: 2})))

    def key(self) -> Any:
        random = self.random
        if self.is_usual:
            return random.choice(KEYS[:-1]) if random.randrange(2) else draw_usual_text(random)
        kind = random.randrange(16)
        if kind < 9:
            return random.choice(KEYS)
        if kind < 12:
            return draw_text(random)
        if self.has_refused and kind == 12:
            return random.choice(REFUSED_KEYS)
        if self.has_converted and kind == 13:
            return random.choice(CONVERTED_KEYS)
        return draw_scalar(random)


def draw_usual(random: Random, longest: int = 12) -> Any:
    """A scalar that the server writes without asking Python."""
    kind = random.randrange(12)
    if kind < 2:
        return random.choice((None, True, False))
    if kind < 5:
        number = draw_int(random)
        return number if -(2**63) <= number < 2**63 else number % 2**64 - 2**63
    if kind < 8:
        return draw_float(random)
    return draw_usual_text(random, longest)


def draw_usual_text(random: Random, longest: int = 12) -> str:
    """Text that has a UTF-8 form."""
    return draw_text(random, longest).encode("utf-8", "ignore").decode("utf-8")


def draw_scalar(random: Random) -> Any:
    kind = random.randrange(16)
    if kind < 3:
        return random.choice((None, True, False))
    if kind < 6:
        return draw_int(random)
    if kind < 9:
        return draw_float(random)
    if kind < 13:
        return draw_text(random)
    if kind == 13:
        return random.choice((shapes.Size.SMALL, shapes.Size.HUGE, shapes.Name.PLAIN, shapes.Name.QUOTED))
    if kind == 14:
        return random.choice((shapes.Whole(draw_int(random)), shapes.Real(draw_float(random))))
    return shapes.Text(draw_text(random))


def draw_text(random: Random, longest: int = 12) -> str:
    alphabet = random.choice(ALPHABETS)
    if random.randrange(4) == 3:
        alphabet = "".join(ALPHABETS)
    return "".join(random.choices(alphabet, k=random.randrange(longest + 1)))


def draw_int(random: Random) -> int:
    kind = random.randrange(40)
    sign = random.choice((1, -1))
    if kind < 12:
        return sign * random.randrange(1000)
    if kind < 15:
        return sign * random.choice((2**31, 2**32, 2**53, 2**63, 2**64)) - random.randrange(2)
    if kind < 25:
        return sign * (1 << random.randrange(70)) + random.randrange(-2, 3)
    if kind < 39:
        return sign * random.getrandbits(random.randrange(1, 200))
    # Python writes integers of up to 4300 digits.
    return sign * 10 ** random.choice((100, 4298, 4299, 4300, 5000)) - random.randrange(2)


def draw_float(random: Random) -> float:
    kind = random.randrange(10)
    if kind == 0:
        return random.choice((0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, -5e-324, sys.float_info.max))
    if kind < 4:
        return float(struct.unpack("<d", struct.pack("<Q", random.getrandbits(64)))[0])
    if kind < 7:
        return float(f"{random.randrange(-99999, 100000)}e{random.randrange(-12, 22)}")
    # Beside the powers of ten, where the notation changes, and of two, where the spacing does.
    if kind == 7:
        edge = random.choice((1e-5, 1e-4, 1e15, 1e16, 1e17, 1e22, 1e23))
    else:
        edge = float(f"1e{random.randrange(-12, 25)}") if kind == 8 else 2.0 ** random.randrange(-1074, 1024)
    return random.choice((1, -1)) * math.nextafter(edge, random.choice((0.0, edge, math.inf)))


# ---- What json.dumps makes of it


def expected(recipe: Any) -> set[bytes | None]:
    """The possible bodies; None stands for a result that cannot be rendered."""
    if isinstance(recipe, shapes.Nested):
        value = recipe.build()
        if recipe.depth >= DEEP:
            return outcomes(lambda: _rendered(value))
        return {_rendered(value)}
    return {_rendered({} if recipe is None else recipe)}


def _rendered(value: Any) -> bytes | None:
    try:
        try:
            return json.dumps(value, default=plain).encode("ascii")
        except TypeError as error:
            if not str(error).startswith("keys must be"):
                raise
            return json.dumps(_with_plain_keys(value), default=plain).encode("ascii")
    except (TypeError, ValueError, RecursionError):
        return None


def outcomes(call: Callable[[], bytes | None]) -> set[bytes | None]:
    """The results of ``call`` with somewhat fewer and somewhat more frames left than a worker
    has."""
    depth, frame = 0, sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        depth += 1
    limit = sys.getrecursionlimit()
    found = set()
    try:
        for left in (1000 - FRAMES, 1000 + FRAMES):
            sys.setrecursionlimit(depth + left)
            found.add(call())
    finally:
        sys.setrecursionlimit(limit)
    return found


def plain(value: Any) -> Any:
    """One step from a value that json does not know to one that it may know, as for
    ``json.dumps(default=)``."""
    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, (np.datetime64, np.timedelta64)) and np.isnat(value):
        return None
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, np.timedelta64):
        return float(value / np.timedelta64(1, "s"))
    if isinstance(value, (np.datetime64, pd.Period, pd.Interval)):
        return str(value)
    if isinstance(value, (np.number, np.bool_)) and not isinstance(value, np.complexfloating):
        return (
            float(value)
            if isinstance(value, np.floating)
            else int(value)
            if isinstance(value, np.integer)
            else bool(value)
        )
    if isinstance(value, np.ndarray):
        return [value[index] for index in range(len(value))] if value.ndim else value[()]
    if isinstance(value, pd.DataFrame):
        return [dict(zip(value.columns, row)) for row in value.itertuples(index=False)]
    if isinstance(value, (pd.Series, pd.Index)):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"no JSON for {type(value)}")


def _with_plain_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {_plain_key(key): _with_plain_keys(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_plain_keys(inner) for inner in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    return _with_plain_keys(plain(value))


def _plain_key(key: Any) -> Any:
    return key if key is None or isinstance(key, (str, int, float)) else plain(key)


# ---- Making what differs smaller


def smaller(recipe: Any) -> Iterator[Any]:
    """Simpler values that may fail for the same reason, the simplest first."""
    if isinstance(recipe, shapes.Nested):
        for depth in (recipe.depth // 2, recipe.depth - 1):
            if 0 < depth < recipe.depth:
                yield dataclasses.replace(recipe, depth=depth)
        for leaf in smaller(recipe.leaf):
            yield dataclasses.replace(recipe, leaf=leaf)
        if len(recipe.kinds) > 1:
            yield from (dataclasses.replace(recipe, kinds=kind) for kind in recipe.kinds)
    elif isinstance(recipe, dict):
        yield from recipe.values()
        yield from recipe.keys()
        for gone in recipe:
            yield type(recipe)((key, inner) for key, inner in recipe.items() if key is not gone)
        for changed, value in recipe.items():
            for less in smaller(value):
                yield {key: less if key is changed else inner for key, inner in recipe.items()}
    elif isinstance(recipe, (list, tuple)):
        yield from recipe
        for index, value in enumerate(recipe):
            yield [*recipe[:index], *recipe[index + 1 :]]
            for less in smaller(value):
                yield [*recipe[:index], less, *recipe[index + 1 :]]
    elif isinstance(recipe, str) and type(recipe) is str:
        for size in (len(recipe) // 2, 1):
            for start in range(0, len(recipe), size or 1):
                yield recipe[:start] + recipe[start + (size or 1) :]
