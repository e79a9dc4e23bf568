"""Imports Flask only when it is called, and answers with what the request context shows."""


def init():
    pass


def run(data):
    import flask

    return flask.request.path if flask.has_request_context() else None
