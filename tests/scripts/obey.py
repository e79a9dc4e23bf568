"""Executes the Python statements that it gets, and answers with what they call ``answer``."""

import os  # noqa: F401
import signal  # noqa: F401
import sys  # noqa: F401
import time  # noqa: F401


def init():
    pass


def run(data):
    names = {**globals(), "answer": "done"}
    exec(data, names)
    return names["answer"]
