"""Which settings in force become variables in the files, and which do not.

Owns the reasons for leaving one out, and that no secret is written. A setting that is new in the table is written as
its variable unless it is listed here or names a path. Pure functions. Runs in the command.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..launch import settings_table as table
from ..launch.settings import DEFAULT, FILE, Settings
from ..launch.settings_table import OTEL_VARIABLES, SETTINGS, Setting

# Settings that the files have in another form: as arguments, folders, ports.
_PLACED = frozenset({"entry_script", "model_dir", "config_file", "app_root", "port", "health_port", "rest", "host"})
# Settings that say something about this machine, or about the work at it.
_FOR_DEVELOPMENT = frozenset({"plain", "debug_port", "debug_wait", "debugger_port", "reload", "reload_dir"})
# What the system writes, and no person.
_OF_THE_MACHINE = frozenset({"hostname"})
_PATHS = frozenset({table.PATH, table.RESOLVED_PATH})
# Below AML_APP_ROOT, which is the folder that the files are about.
_RELATIVE = frozenset({"source_directory"})
_OTEL_PATHS = ("_CERTIFICATE", "_CLIENT_KEY")


class Variable(NamedTuple):
    """A variable and its value; ``why`` is the comment beside it, if there is one."""

    name: str
    value: str
    why: str = ""


class Carried(NamedTuple):
    """What the files have: variables, the names of those with secrets, and sentences about settings left out."""

    variables: tuple[Variable, ...]
    secrets: tuple[str, ...]
    notes: tuple[str, ...]


def carried(given: Settings, environment: Mapping[str, str], with_file: bool) -> Carried:
    """The given settings as variables. ``with_file``: the configuration file goes where the script goes, so its
    settings need no variables."""
    variables: list[Variable] = []
    secrets: list[str] = []
    notes: list[str] = []
    for setting in SETTINGS:
        origin = given.origins[setting.name]
        if origin.kind == DEFAULT or setting.name in _PLACED | _OF_THE_MACHINE or (origin.kind == FILE and with_file):
            continue
        if setting.name == "server_version" and given.server_version_log_response_enabled:
            continue  # the variable does not count
        name, value = setting.environment or "", text(getattr(given, setting.name))
        reason = _reason_to_leave_out(setting, value)
        if reason:
            notes.append(f"{origin.name} is left out: {reason}.")
        elif setting.secret:
            secrets.append(name)
        else:
            variables.append(Variable(name, value))
    for row in OTEL_VARIABLES:
        value = environment.get(row.name, "")
        if not value:
            continue
        if row.secret:
            secrets.append(row.name)
        elif row.name.endswith(_OTEL_PATHS):
            notes.append(f"{row.name} is left out: it names a file of this machine.")
        elif not value.isprintable():
            notes.append(f"{row.name} is left out: its value has a control character.")
        else:
            variables.append(Variable(row.name, value))
    return Carried(tuple(variables), tuple(secrets), tuple(notes))


def _reason_to_leave_out(setting: Setting, value: str) -> str | None:
    if setting.name in _FOR_DEVELOPMENT:
        return "it is for development"
    if setting.kind in _PATHS and setting.name not in _RELATIVE:
        return "it names a path of this machine"
    return None if value.isprintable() else "its value has a control character"


def text(value: object) -> str:
    """A value as its variable has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
