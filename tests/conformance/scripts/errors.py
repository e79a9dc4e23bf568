"""Fails in the way named in the body."""

import builtins
import json
import sys
import warnings

import flask
import werkzeug.exceptions


class Own(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Broken(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def inner(value):
    raise ValueError(f"bad value {value}")


def value():
    raise ValueError("a message with secrets")


def nested():
    inner(3)


def chained():
    try:
        inner(4)
    except ValueError as error:
        raise KeyError("outer") from error


def suppressed():
    try:
        inner(5)
    except ValueError:
        raise KeyError("only this") from None


def context():
    return {}["missing"]


def recursion():
    return recursion()


def group():
    raise builtins.ExceptionGroup("several", [ValueError("one"), TypeError("two")])


def note():
    error = ValueError("noted")
    error.add_note("a note")
    raise error


def raiser(error):
    def fail():
        raise error

    return fail


def print_then_raise():
    print("before")
    raise ValueError("after")


def warn():
    warnings.warn("careful", stacklevel=1)
    return "warned"


def to_stderr():
    print("to standard error", file=sys.stderr)
    return "written"


CASES = {
    "value": value,
    "nested": nested,
    "chained": chained,
    "suppressed": suppressed,
    "abort": lambda: flask.abort(404),
    "http": raiser(werkzeug.exceptions.ImATeapot()),
    "unicode": raiser(ValueError("é ☃ 😀")),
    "empty": raiser(ValueError()),
    "multi-line": raiser(ValueError("one\ntwo\n  three")),
    "recursion": recursion,
    "custom": raiser(Own(5)),
    "library": lambda: json.loads("{"),
    "json": lambda: json.dumps(object()),
    "group": group,
    "note": note,
    "assert": raiser(AssertionError("x")),
    "import": lambda: __import__("not_a_module"),
    "stop-iteration": raiser(StopIteration(1)),
    "bad-str": raiser(Broken()),
    "print-then-raise": print_then_raise,
    "warn": warn,
    "stderr": to_stderr,
    "key": context,
    "fine": lambda: "fine",
}


def init():
    pass


def run(raw_data):
    return CASES[raw_data]()
