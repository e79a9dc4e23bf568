"""What the fuzzed scripts and the fuzzer both need: classes of results, deep nesting, and a
description of values.

Imported by the test process and, from the folder of the scripts, by worker processes. Decides
nothing about what is right: it only makes and shows values.
"""

import collections
import dataclasses
import enum
import io
import pickle


class Text(str):
    def __str__(self):
        return "not what json writes"

    __repr__ = __str__


class Whole(int):
    def __repr__(self):
        return "not what json writes"


class Real(float):
    def __repr__(self):
        return "not what json writes"


class Items(list):
    pass


class Row(tuple):
    pass


class Record(dict):
    pass


class Size(enum.IntEnum):
    SMALL = -1
    HUGE = 2**70


class Name(str, enum.Enum):
    PLAIN = "plain"
    QUOTED = 'é"\\'


class Plain(enum.Enum):
    ONE = 1


Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Point:
    x: object
    y: object


class Opaque:
    pass


@dataclasses.dataclass(frozen=True)
class Nested:
    """A value ``depth`` containers deep; pickle itself could not hold it that deep."""

    depth: int
    kinds: str
    leaf: object

    def build(self):
        value = self.leaf
        for level in range(self.depth):
            value = _WRAP[self.kinds[level % len(self.kinds)]](value)
        return value


_WRAP = {
    "l": lambda value: [value],
    "t": lambda value: (value,),
    "d": lambda value: {"k": value},
    "L": lambda value: Items([value]),
    "D": lambda value: Record(k=value),
}


def dump(recipe):
    return pickle.dumps(recipe)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        """Classes of this file, whatever name it was imported by."""
        return globals()[name] if module.endswith("fuzz_shapes") else super().find_class(module, name)


def load(data):
    recipe = _Unpickler(io.BytesIO(data)).load()
    return recipe.build() if type(recipe) is Nested else recipe


def describe(value):
    """Everything about a value parsed from JSON, types and order included, as lines of text."""
    lines, waiting = [], [value]
    while waiting:
        value = waiting.pop()
        if type(value) is list:
            lines.append(f"list of {len(value)}")
            waiting.extend(reversed(value))
        elif type(value) is dict:
            lines.append(f"dict of {len(value)}")
            for key, inner in reversed(list(value.items())):
                waiting += (inner, key)
        else:
            lines.append(f"{type(value).__name__} {value!r}")
    return "\n".join(lines)
