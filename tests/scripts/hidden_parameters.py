"""Needs an argument that nobody passes, which the server cannot see before the call."""

import functools


def init():
    pass


@functools.lru_cache
def run(data, other):
    return data
