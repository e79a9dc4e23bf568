"""Has an init() that fails."""


def init():
    raise LookupError("no luck in init")


def run(data):
    return data
