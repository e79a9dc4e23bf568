"""Raises the exception that it gets as an expression."""

import asyncio  # noqa: F401
import json  # noqa: F401
import socket  # noqa: F401

import flask  # noqa: F401


class Unusual(BaseException):
    pass


class Chatty(Exception):
    def __str__(self):
        return "first line\nsecond line: größer"


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def init():
    pass


def run(data):
    if data == "fine":
        return data
    if data.startswith("call "):
        return eval(compile(data[5:], "elsewhere", "eval"))  # calls from here
    raise eval(data)  # raises here
