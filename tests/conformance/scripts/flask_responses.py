"""Scores by returning flask's own kinds of responses."""

import io
import os

import flask
import werkzeug


def parts():
    yield "one "
    yield "two"


def cookie():
    response = flask.make_response("x")
    response.set_cookie("a", "b c", httponly=True, samesite="Lax")
    return response


def no_content_type():
    response = flask.Response("x")
    del response.headers["Content-Type"]
    return response


def after():
    @flask.after_this_request
    def add(response):
        response.headers["X-After"] = "yes"
        return response

    return {"a": 1}


def stream_context():
    return flask.Response(flask.stream_with_context(flask.request.path for _ in range(2)))


CASES = {
    "plain": lambda: flask.Response("text"),
    "json": lambda: flask.jsonify({"b": 1, "a": "é"}),
    "redirect": lambda: flask.redirect("/elsewhere?x=1"),
    "status-500": lambda: flask.Response("x", 500),
    "status-404": lambda: flask.Response("x", 404, {"X-A": "1, 2"}),
    "send-file": lambda: flask.send_file(os.path.abspath("data.bin"), last_modified=0, etag=False),
    "send-file-attachment": lambda: flask.send_file(
        io.BytesIO(b"abc"), mimetype="image/png", as_attachment=True, download_name="ü.png"
    ),
    "cookie": cookie,
    "make-response-tuple": lambda: flask.make_response(("body", 201, {"X-B": "2"})),
    "stream": lambda: flask.Response(parts()),
    "stream-context": stream_context,
    "werkzeug": lambda: werkzeug.Response("x"),
    "in-list": lambda: [flask.Response("x")],
    "no-content-type": no_content_type,
    "204": lambda: flask.Response("x", 204),
    "304": lambda: flask.Response("x", 304),
    "abort": lambda: flask.abort(403),
    "after-this-request": after,
    "own-length": lambda: flask.Response("abcdef", headers={"Content-Length": "6"}),
    "conditional": lambda: flask.Response("abc").make_conditional(flask.request),
    "wrong-length-stream": lambda: flask.Response(iter([b"abc"]), headers={"Content-Length": "3"}),
    "render": lambda: flask.Response(flask.render_template_string("{{ a }} & <b>", a="<x>")),
    "head": lambda: flask.Response("x", headers=[("X-Multi", "1"), ("X-Multi", "2")]),
}


def init():
    pass


def run(raw_data):
    return CASES[raw_data]()
