"""Scores by returning a value of the kind named in the body: everything json.dumps can be asked to
write."""

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import types
import uuid


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 3


class Word(str, enum.Enum):
    ONE = "one"


class Text(str):
    def __str__(self):
        return "not this"


class Whole(int):
    def __repr__(self):
        return "not this"


class Real(float):
    def __repr__(self):
        return "not this"


class Table(dict):
    pass


class Row(list):
    pass


Point = collections.namedtuple("Point", "x y")


@dataclasses.dataclass
class Record:
    name: str
    values: list


def recursive():
    value = []
    value.append(value)
    return value


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


VALUES = {
    "none": lambda: None,
    "true": lambda: True,
    "int": lambda: -5,
    "big-int": lambda: 10**100,
    "int-4400-digits": lambda: 10**4400,
    "float": lambda: 1.5,
    "floats": lambda: [0.1, 1e22, 1e16, 123456789012345.6, 1e-7, 5e-324, -0.0, 1.0, 1e300],
    "float-repr": lambda: [0.1 + 0.2, 1 / 3, 2 / 3, 1e21, 1e-5, 1e-4, 9007199254740993.0, 1.7976931348623157e308],
    "nan": lambda: [float("nan"), float("inf"), float("-inf")],
    "str": lambda: "text",
    "empty-str": lambda: "",
    "escapes": lambda: (
        "quote \" backslash \\ slash / less < amp & tab \t newline \n return \r bs \b ff \f apostrophe '"
    ),
    "unicode": lambda: "é ☃ 😀 \u2028 \u2029 \uffff",
    "lone-surrogate": lambda: "\ud800 and \udfff",
    "control": lambda: "".join(chr(i) for i in range(32)) + "\x7f\x80\x9f\xa0",
    "list": lambda: [1, "two", 3.0, None, True],
    "empty-list": list,
    "tuple": lambda: (1, (2, 3), ()),
    "body-status-tuple": lambda: ("body", 404),
    "nested": lambda: {"a": {"b": [{"c": None}, [], {}]}},
    "dict": lambda: {"z": 1, "a": 2, "é": 3},
    "empty-dict": dict,
    "key-types": lambda: {1: "int", 1.5: "float", None: "none", "s": "str", -0.0: "zero", 10**30: "big"},
    "bool-keys": lambda: {True: 1, False: 0},
    "key-collision": lambda: {1: "int", "1": "str", None: 1, "null": 2},
    "key-tuple": lambda: {(1, 2): 3},
    "key-bytes": lambda: {b"a": 3},
    "key-nan": lambda: {float("nan"): 1, float("inf"): 2},
    "bytes": lambda: b"abc",
    "bytearray": lambda: bytearray(b"abc"),
    "memoryview": lambda: memoryview(b"abc"),
    "set": lambda: {1},
    "generator": lambda: (i for i in range(3)),
    "range": lambda: range(3),
    "namedtuple": lambda: Point(1, 2),
    "ordered-dict": lambda: collections.OrderedDict(b=1, a=2),
    "defaultdict": lambda: collections.defaultdict(int, a=1),
    "counter": lambda: collections.Counter("aab"),
    "int-enum": lambda: [Level.LOW, {Level.LOW: 1}],
    "str-enum": lambda: [Word.ONE, {Word.ONE: 1}],
    "enum": lambda: Colour.RED,
    "str-subclass": lambda: [Text("sub"), {Text("key"): 1}],
    "int-subclass": lambda: [Whole(7), {Whole(8): 1}],
    "float-subclass": lambda: [Real(1.5), {Real(2.5): 1}],
    "dict-subclass": lambda: Table(a=1),
    "list-subclass": lambda: Row([1, 2]),
    "decimal": lambda: decimal.Decimal("1.5"),
    "complex": lambda: 1j,
    "object": object,
    "exception": lambda: ValueError("x"),
    "function": lambda: recursive,
    "class": lambda: Record,
    "not-implemented": lambda: NotImplemented,
    "ellipsis": lambda: ...,
    "recursive": recursive,
    "deep-list": deep,
    "json-text": lambda: '{"a": 1}',
    "mapping-proxy": lambda: types.MappingProxyType({"a": 1}),
    "user-dict": lambda: collections.UserDict(a=1),
    "deque": lambda: collections.deque([1]),
    "dict-values": lambda: {"a": 1}.values(),
    "large": lambda: [{"index": i, "value": i / 7, "name": f"n{i}é"} for i in range(5000)],
    "mutated-str-dict": lambda: {"a" * 300: "b" * 70_000},
    "uuid": lambda: uuid.UUID(int=5),
    "path": lambda: pathlib.PurePosixPath("/x"),
    "datetime": lambda: datetime.datetime(2024, 5, 6, 7, 8, 9),
    "date": lambda: datetime.date(2024, 5, 6),
    "dataclass": lambda: Record("n", [1, 2]),
}


def init():
    pass


def run(raw_data):
    return VALUES[raw_data]()
