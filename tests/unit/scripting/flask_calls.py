"""Calls of a run() through the Flask application, with a fake script, for the tests of several files."""

from __future__ import annotations

import json
from types import SimpleNamespace

from azureml_inference_server_http.scripting.flask_context import FlaskContext
from azureml_inference_server_http.scripting.wsgi_environ import Request

SETTINGS = SimpleNamespace(
    serves_v2=False,
    host="0.0.0.0", port=5001, worker_class="process", worker_count=1, worker_threads=1,
    server_version="azmlinfsrv/1.5.1", scoring_timeout_ms=400, error_details=False, client_errors=False,
)  # fmt: skip


def request(method="POST", target="/score", headers=(("Host", "h:1"),), body=b"", peer="10.0.0.1:7", request_id="r"):
    return Request(method, target, 1, list(headers), body, (peer, "", None), request_id)


class Script:
    """A fake of ``script.Script`` with the parts that FlaskContext uses. It records log
    messages."""

    def __init__(self, run, pass_headers=False):
        self.run = run
        self.input_name = "data"
        self.pass_headers = pass_headers
        self.logged = []
        self.collects_model_data = False
        self.is_async = False

    def script_failed(self, exc):
        self.logged.append(("script", exc))
        self.first_frame = exc.__traceback__.tb_frame.f_code.co_name
        return "score.py:1 Error"

    def internal_failed(self, exc):
        self.logged.append(("internal", exc))

    def error_text(self, exc):
        return f"text of {exc}"

    def note_result(self, result):
        """Results are not looked at."""


def context_for(run, pass_headers=False, **settings):
    """A FlaskContext whose script is ``run``; ``logged`` is the script's list."""
    script = Script(run, pass_headers)
    context = FlaskContext(SimpleNamespace(**{**vars(SETTINGS), **settings}), script)
    context.script, context.logged = script, script.logged
    return context


def call(run, kwargs=None, pass_headers=False, **fields):
    """The answer of a raw ``run``, or of one that is called with ``kwargs``."""
    return context_for(run, pass_headers).call(request(**fields), kwargs, None)


def seen(read, **fields):
    """The result of ``read(request)`` inside run()."""
    kept = []
    call(lambda data: kept.append(read(data)), **fields)
    return kept[0]


def message(answer):
    return json.loads(answer.body)["message"]
