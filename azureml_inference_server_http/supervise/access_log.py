"""Records of the logger ``gunicorn.access``, for users whose logging.json names it.

Owns the form of a record: message, arguments and process id are the same as gunicorn's (contract
section 13). The front decides which requests get a record, and calls ``log``
(``src/front/access_log.rs``). This module does not own the logging.json (``log_config.py``). Runs
in the front, in a thread that writes the log.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from collections.abc import Mapping
from typing import Any

NAME = "gunicorn.access"
# gunicorn's default format. A logging.json cannot change it, but a formatter can use other fields
# (``record.args``).
FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'


class Atoms(dict[str, Any]):
    """The fields of a request by gunicorn's names. Any other name gives ``-``."""

    def __missing__(self, name: str) -> str:
        return "-"


def is_named(config: Mapping[str, Any]) -> bool:
    """True if a configuration for ``dictConfig`` names this logger."""
    loggers = config.get("loggers")
    return isinstance(loggers, dict) and NAME in loggers


def log(fields: Mapping[str, str]) -> None:
    """Log one request. The front makes ``fields`` (``src/front/access_log.rs``), and escapes
    control characters."""
    logging.getLogger(NAME).info(FORMAT, atoms(fields), extra={"worker_pid": int(fields["worker_pid"])})


def atoms(fields: Mapping[str, str]) -> Atoms:
    """Make the fields of a record, by gunicorn's names."""
    microseconds, sent = int(fields["microseconds"]), int(fields["sent"])
    found = {
        "h": fields["client"],
        "l": "-",
        "u": _user(fields["authorization"]),
        "t": time.strftime("[%d/%b/%Y:%H:%M:%S %z]"),
        "r": f"{fields['method']} {fields['uri']} {fields['version']}",
        "s": fields["status"],
        "m": fields["method"],
        "U": fields["path"],
        "q": fields["query"],
        "H": fields["version"],
        "b": str(sent),
        "B": sent,
        "f": fields["referer"],
        "a": fields["agent"],
        "T": microseconds // 1_000_000,
        "D": microseconds,
        "M": microseconds // 1000,
        "L": f"{microseconds // 1_000_000}.{microseconds % 1_000_000:06}",
        "p": f"<{fields['worker_pid']}>",
    }
    return Atoms({key: value.replace('"', '\\"') if isinstance(value, str) else value for key, value in found.items()})


def _user(authorization: str) -> str:
    """The user's name in a Basic authorization, or ``-``."""
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "-"
    try:
        name = base64.b64decode(credentials.strip(), validate=True).decode("utf-8").partition(":")[0]
    except (binascii.Error, ValueError):
        return "-"
    # Escaped here, because the front could not see control characters in the base64 text.
    plain = name if name.isprintable() else name.encode("unicode_escape").decode("ascii")
    return plain or "-"
