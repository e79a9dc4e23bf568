"""Reads memory that is not there."""

import ctypes


def init():
    pass


def run(data):
    if data == "crash":
        ctypes.string_at(0)
    return data
