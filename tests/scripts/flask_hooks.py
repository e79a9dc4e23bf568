"""Watches its own calls by all means of Flask, and changes each reply by a WSGI middleware and by
after_request.

The body "seen" is answered with what was seen since then, "boom" by an exception.
"""

import flask

seen = []
kept = []  # signals have weak references only


def init():
    for name in ("request_started", "request_finished", "got_request_exception", "request_tearing_down"):
        connect(getattr(flask, name), name)


def connect(signal, name):
    def note(sender, response=None, exception=None, exc=None, **others):
        seen.append([name, response and response.status_code, repr(exception or exc)])

    kept.append(note)
    signal.connect(note)


def install(app):
    app.wsgi_app = Middleware(app.wsgi_app)
    app.before_request_funcs.setdefault(None, []).append(lambda: seen.append(["before_request"]))
    app.after_request_funcs.setdefault(None, []).append(after_request)
    app.teardown_request_funcs.setdefault(None, []).append(lambda exc: seen.append(["teardown_request", repr(exc)]))


def after_request(response):
    seen.append(["after_request", response.status_code, response.get_data(as_text=True)])
    response.headers["x-after-request"] = "1"
    return response


class Middleware:
    """Answers in capitals, 203 instead of 200."""

    def __init__(self, inner):
        self._inner = inner

    def __call__(self, environ, start_response):
        def start(status, headers, exc_info=None):
            names = {"Content-Length", "x-request-id", "x-ms-server-version", "x-ms-run-function-failed"}
            seen.append(["middleware", status, {name: value for name, value in headers if name in names}])
            return start_response(status.replace("200 OK", "203 Changed"), [*headers, ("x-middleware", "1")], exc_info)

        body = self._inner(environ, start)
        try:
            for part in body:
                yield part.upper()
        finally:
            seen.append(["closed"])
            body.close()


def run(data):
    app = flask.current_app
    if not isinstance(app.wsgi_app, Middleware):
        install(app)
    if data == "seen":
        found = seen[:]
        seen.clear()
        return found
    if data == "boom":
        raise ValueError("boom")
    return data
