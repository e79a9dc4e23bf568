"""Returns the object that the request describes; with FUZZ_FLASK=1 as a script that uses Flask."""

import base64
import os
import sys

sys.path.append(os.path.dirname(__file__))

import fuzz_shapes

if os.environ.get("FUZZ_FLASK") == "1":
    import flask  # noqa: F401  from now on run() is called inside a request context


def init():
    pass


def run(data):
    return fuzz_shapes.load(base64.b64decode(data))
