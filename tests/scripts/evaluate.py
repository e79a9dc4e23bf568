"""Answers with the value of the Python expression that it got."""

import collections
import dataclasses
import datetime  # noqa: F401
import decimal  # noqa: F401
import enum


class Color(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    TWO = 2


class Text(str):
    pass


Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Point:
    x: int
    y: float


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def circle():
    value = []
    value.append(value)
    return value


async def coroutine():
    pass


def init():
    pass


def run(data):
    return eval(data)
