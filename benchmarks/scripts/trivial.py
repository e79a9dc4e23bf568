"""Does nothing, so that what is measured is the server."""


def init():
    pass


def run(data):
    return {"ok": True}
