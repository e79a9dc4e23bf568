"""Makes the replies to errors of a script: whose fault it is, and what the reply tells about it.

Without ``--error_details`` and ``--client_errors`` the replies are those of contract section 8, which
``src/worker/call.rs`` makes itself for scripts that are not called by way of Flask. With one of the
two it calls this file, as ``flask_context.py`` always does. Runs in workers.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any

from . import outputs, tracebacks

if TYPE_CHECKING:
    from ..launch.settings import Settings
    from .script import Script

SCRIPT_ERROR = "An unexpected error occurred in scoring script. Check the logs for more info."
INTERNAL_ERROR = "An unexpected internal error occurred. Check the logs for more info."
_SCHEMA_FILE = re.compile(r"[/\\]inference_schema[/\\]schema_decorators\.pyc?$")
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "body{color:#1b1b1b;background:#fff}"
    "h1{font-size:1.4rem}pre{overflow:auto;padding:1rem;background:#f2f2f2;border-left:.3rem solid #b3261e}"
    "dt{font-weight:600}dd{margin:0 0 .5rem}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#161616}pre{background:#242424}}"
)


def of_run(script: Script, settings: Settings, exc: BaseException, accept: str, body: bytes | None) -> outputs.Answer:
    """The reply to a request for which run() has raised ``exc``, which is logged here. ``accept`` is the request's
    header, ``body`` its body if it is known."""
    if settings.client_errors:
        fault = _client_fault(script, exc, body)
        if fault is not None:
            status, message = fault
            script.input_refused(message)
            return _answer(status, {"message": message}, outputs.SERVER_ERROR, script.location(exc), "")
    location = script.script_failed(exc)
    content = {"message": SCRIPT_ERROR}
    if isinstance(exc, TimeoutError):
        content = {"message": f"Scoring timeout after {settings.scoring_timeout_ms} ms"}
    if settings.error_details:
        place = location.rpartition(" ")[0]
        content["error"] = tracebacks.ending_of(exc)
        if place:
            content["location"] = place
        content["traceback"] = script.error_text(exc)
    origin = outputs.TIMEOUT if isinstance(exc, TimeoutError) else outputs.SCRIPT_ERROR
    return _answer(500, content, origin, location, accept if settings.error_details else "")


def of_server(script: Script, settings: Settings, exc: BaseException, accept: str) -> outputs.Answer:
    """The reply to a request whose input cannot be converted, or whose result cannot be sent, because of ``exc``, which
    is logged here."""
    script.internal_failed(exc)
    content = {"message": INTERNAL_ERROR}
    if settings.error_details:
        content["error"] = tracebacks.ending_of(exc)
        place = getattr(exc, "place", "")
        if place:
            content["value"] = place
    return _answer(500, content, outputs.SERVER_ERROR, "", accept if settings.error_details else "")


def _answer(status: int, content: dict[str, str], origin: str, location: str, accept: str) -> outputs.Answer:
    """``accept`` is empty if there is no page of this error."""
    if "text/html" in accept.lower():
        headers = [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", _policy()),
            ("X-Content-Type-Options", "nosniff"),
        ]
        page = _page(status, content).encode("utf-8", "backslashreplace")
        return outputs.Answer(status, None, headers, page, origin, location=location)
    headers = [("Content-Type", "application/json")]
    return outputs.Answer(status, None, headers, outputs.to_json(content), origin, location=location)


# ---- Whose fault it is


def _client_fault(script: Script, exc: BaseException, body: bytes | None) -> tuple[int, str] | None:
    """Status and message if the request is to blame for this exception of run(); None if the script is."""
    werkzeug = sys.modules.get("werkzeug.exceptions")
    if werkzeug is not None and isinstance(exc, werkzeug.HTTPException):
        code = exc.code or 500
        return (code, exc.description or exc.name) if 400 <= code < 500 else None
    if isinstance(exc, json.JSONDecodeError):
        # Only if the script has parsed the request itself: its own files may be broken too.
        is_body = body is not None and exc.doc.encode("utf-8", "surrogatepass") == body
        return (400, f"The request body is not JSON: {exc}") if is_body else None
    parameter = _schema_parameter(exc)
    if script.mode == "schema" and parameter is not None:
        return 400, f"The value of the parameter {parameter!r} does not match the schema: {tracebacks.ending_of(exc)}"
    return None


def _schema_parameter(exc: BaseException) -> str | None:
    """The parameter whose value inference_schema could not convert, if that is where the exception was raised."""
    parameter = None
    for frame, _ in traceback.walk_tb(exc.__traceback__):
        name = frame.f_locals.get("param_name") if frame.f_code.co_name == "_deserialize_input_argument" else None
        if isinstance(name, str) and _SCHEMA_FILE.search(frame.f_code.co_filename):
            parameter = parameter or name
    return parameter


# ---- For a browser


def _policy() -> str:
    """No script, no image, no connection: whatever an exception's text has in it, the page shows it as text."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _page(status: int, content: dict[str, Any]) -> str:
    """The same as a page that needs nothing else."""
    details = dict(content)
    title, text = f"{status}: {details.pop('message')}", details.pop("traceback", "")
    rows = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in details.items())
    shown = f"<pre>{html.escape(text)}</pre>" if text else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>{html.escape(title)}</h1><dl>{rows}</dl>{shown}"
        "<p>This page is shown because of --error_details. Callers that do not ask for HTML get JSON.</p>"
        "</main></body></html>\n"
    )
