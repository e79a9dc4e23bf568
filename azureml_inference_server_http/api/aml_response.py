"""Public: ``AMLResponse``, for scripts that choose the status or headers of a reply, or stream it.

Importing this module imports Flask, so the server imports it only if the script has. Runs in
workers. The module ``outputs`` makes the bytes of the reply. Rules: contract section 7.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from flask import Response

from ..scripting import traps

__all__ = ["AMLResponse"]

_JSON = "application/json"
_FAILED_HEADER = "x-ms-run-function-failed"
_NO_HEADERS: dict[str, str] = {}


class AMLResponse(Response):
    """A Flask response with the arguments scoring scripts use.

    ``message``: text, bytes, an iterable of them (sent as a stream when it has no length), or None
    for ``{}``; with ``json_str=True`` any value that ``json.dumps`` takes. ``status_code``: a
    number, or text such as ``"200 Fine"`` with a reason phrase of its own. ``response_headers``:
    each value is split at commas and every part is added as a header line. ``run_function_failed``:
    value of the ``x-ms-run-function-failed`` header; a status of 500 and above makes it True.
    """

    def __init__(
        self,
        message: Any,
        status_code: int | str | HTTPStatus | None,
        response_headers: Mapping[str, str] = _NO_HEADERS,
        json_str: bool = False,
        run_function_failed: Any = False,
    ) -> None:
        traps.note_response(message, bool(json_str))
        body: Iterable[bytes] | bytes | Iterable[str] | str | None
        as_json = message is None or bool(json_str)
        own_type: str | None = None if as_json else response_headers.get("Content-Type")
        body = ("{}" if message is None else json.dumps(message)) if as_json else message
        super().__init__(body, status=status_code, mimetype=_JSON if as_json else None)
        if own_type is not None:
            # Flask's default type is removed, because the loop below adds the script's type like
            # any other header.
            self.headers.remove("Content-Type")
        self.headers.add(_FAILED_HEADER, str(run_function_failed))
        for name, value in response_headers.items():
            for part in value.split(","):
                self.headers.add(name, part.strip())
