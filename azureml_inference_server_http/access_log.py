"""Records of the logger ``gunicorn.access``, for users whose logging.json names it.

Owns what such a record looks like: message, arguments and process id are those of gunicorn's own (contract section 13).
Does not own which requests have one (``src/front/access_log.rs``, which calls ``log``), nor the logging.json
(``log_config.py``). Runs in the front, in a thread that writes the log.
"""

from __future__ import annotations

import base64
import binascii
import logging
import time
from collections.abc import Mapping
from typing import Any

NAME = "gunicorn.access"
# gunicorn's default. A logging.json cannot change it; a formatter may use other atoms through ``record.args``.
FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'


class Atoms(dict[str, Any]):
    """What is known about a request, by gunicorn's names. Any other name stands for ``-``."""

    def __missing__(self, name: str) -> str:
        return "-"


def is_named(config: Mapping[str, Any]) -> bool:
    """Whether a configuration for ``dictConfig`` says something about this logger."""
    loggers = config.get("loggers")
    return isinstance(loggers, dict) and NAME in loggers


def log(fields: Mapping[str, str]) -> None:
    """Log one request. ``fields`` are those of ``src/front/access_log.rs``, in which control characters are escaped."""
    logging.getLogger(NAME).info(FORMAT, atoms(fields), extra={"worker_pid": int(fields["worker_pid"])})


def atoms(fields: Mapping[str, str]) -> Atoms:
    """The fields by gunicorn's names."""
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
    # The coding has hidden control characters from the front.
    plain = name if name.isprintable() else name.encode("unicode_escape").decode("ascii")
    return plain or "-"
