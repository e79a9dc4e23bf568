"""Warns of settings for gunicorn, and names the settings of this server to use instead.

With 1.5.1 the variable GUNICORN_CMD_ARGS and the file gunicorn.conf.py in the current folder
worked. Here they have no effect. Owns the table of gunicorn's settings, and one warning for each of
the two places. The file is never run. Runs in the launcher, which imports this module only if one
of the two exists. Rules: contract section 3.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

VARIABLE = "GUNICORN_CMD_ARGS"
FILE = "gunicorn.conf.py"

_NOTHING = "no setting here"
_PROCESS_MANAGER = "no setting here, what starts the command does that"
_PROXY = "no setting here, TLS is left to a proxy"
_LOGGING = "logging.json"


class _Row(NamedTuple):
    """One setting of gunicorn: the setting to use instead, its name in a file, and its names on a
    command line."""

    instead: str
    name: str
    arguments: tuple[str, ...]


_TABLE = (
    _Row("--host and --port", "bind", ("-b", "--bind")),
    _Row("no setting here, 2048 connections may wait to be accepted", "backlog", ("--backlog",)),
    _Row("WORKER_COUNT", "workers", ("-w", "--workers")),
    _Row("--worker_class (process or thread)", "worker_class", ("-k", "--worker-class")),
    _Row("--worker_class thread, with WORKER_COUNT as the number of threads", "threads", ("--threads",)),
    _Row("no setting here, idle connections take no worker", "worker_connections", ("--worker-connections",)),
    _Row("--max_requests", "max_requests", ("--max-requests",)),
    _Row(
        "no setting here, --max_requests spreads by a tenth itself", "max_requests_jitter", ("--max-requests-jitter",)
    ),
    _Row("WORKER_TIMEOUT", "timeout", ("-t", "--timeout")),
    _Row("--graceful_timeout", "graceful_timeout", ("--graceful-timeout",)),
    _Row("--keep_alive", "keepalive", ("--keep-alive",)),
    _Row("no setting here, a request line may have 65535 bytes", "limit_request_line", ("--limit-request-line",)),
    _Row("no setting here, a request may have 96 headers", "limit_request_fields", ("--limit-request-fields",)),
    _Row(
        "no setting here, the headers of a request may have 65535 bytes together",
        "limit_request_field_size",
        ("--limit-request-field_size",),
    ),
    _Row("no setting here, the signal HUP replaces the workers", "reload", ("--reload",)),
    _Row("WORKER_PRELOAD=true", "preload_app", ("--preload",)),
    _Row("no setting here, start the command in that folder or set AML_APP_ROOT", "chdir", ("--chdir",)),
    _Row(_PROCESS_MANAGER, "daemon", ("-D", "--daemon")),
    _Row("environment variables of the command", "raw_env", ("-e", "--env")),
    _Row(_PROCESS_MANAGER, "pidfile", ("-p", "--pid")),
    _Row("no setting here, workers need no such folder", "worker_tmp_dir", ("--worker-tmp-dir",)),
    _Row(_PROCESS_MANAGER, "user", ("-u", "--user")),
    _Row(_PROCESS_MANAGER, "group", ("-g", "--group")),
    _Row(_PROCESS_MANAGER, "umask", ("-m", "--umask")),
    _Row("a logger gunicorn.access in logging.json", "accesslog", ("--access-logfile",)),
    _Row("a formatter of the logger gunicorn.access in logging.json", "access_log_format", ("--access-logformat",)),
    _Row(_LOGGING, "errorlog", ("--error-logfile", "--log-file")),
    _Row("AZUREML_LOG_LEVEL", "loglevel", ("--log-level",)),
    _Row("no setting here, print() is in the log already", "capture_output", ("--capture-output",)),
    _Row(_LOGGING, "logger_class", ("--logger-class",)),
    _Row(_LOGGING, "logconfig", ("--log-config",)),
    _Row(_LOGGING, "logconfig_json", ("--log-config-json",)),
    _Row(_LOGGING, "logconfig_dict", ()),
    _Row("PYTHONPATH", "pythonpath", ("--pythonpath",)),
    _Row(_PROXY, "keyfile", ("--keyfile",)),
    _Row(_PROXY, "certfile", ("--certfile",)),
    _Row(_PROXY, "ca_certs", ("--ca-certs",)),
    _Row(_NOTHING, "config", ("-c", "--config")),
)


def warnings(environment: Mapping[str, str], file: str) -> list[str]:
    """A warning for each of the two places that sets anything. ``file`` is the path of a
    gunicorn.conf.py."""
    found = []
    if environment.get(VARIABLE, "").strip():
        found.append(f"{VARIABLE} has no effect: gunicorn does not run here.{_advice(_by_argument(environment))}")
    if (names := _assigned(file)) is not None:
        by_name = {row.name: row.instead for row in _TABLE}
        advice = _advice((name, by_name.get(name, _NOTHING)) for name in names)
        found.append(f"The file {file} has no effect: gunicorn does not run here.{advice}")
    return found


def _advice(pairs: Iterable[tuple[str, str]]) -> str:
    """A sentence that lists each name once, with the setting to use instead."""
    listed = "; ".join(f"{name} -> {instead}" for name, instead in dict(pairs).items())
    return f" Use instead: {listed}." if listed else ""


def _by_argument(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The arguments in the variable, each with the setting to use instead."""
    text = environment[VARIABLE]
    try:
        words = shlex.split(text)
    except ValueError:  # a quote is not closed
        words = text.split()
    for word in words:
        argument = word.partition("=")[0]
        if argument.startswith("--"):
            yield argument, _instead_of_long(argument)
        elif len(word) > 1 and word.startswith("-") and not word[1:].isdigit():
            yield word[:2], next((row.instead for row in _TABLE if word[:2] in row.arguments), _NOTHING)


def _instead_of_long(argument: str) -> str:
    """The setting to use instead of a long argument. Like gunicorn, accepts an abbreviation that
    fits one argument."""
    exact = [row.instead for row in _TABLE if argument in row.arguments]
    begun = [row.instead for row in _TABLE for known in row.arguments if known.startswith(argument)]
    return exact[0] if exact else begun[0] if len(begun) == 1 else _NOTHING


def _assigned(file: str) -> list[str] | None:
    """The names that a gunicorn.conf.py assigns or defines at its top level; None if there are none
    or there is no file."""
    try:
        with open(file, "rb") as source:
            module = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError):
        return None
    names: list[str] = []
    for statement in module.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.append(statement.name)
        elif isinstance(statement, ast.Assign):
            names += [target.id for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, (ast.AnnAssign, ast.AugAssign)) and isinstance(statement.target, ast.Name):
            names.append(statement.target.id)
    return names or None
