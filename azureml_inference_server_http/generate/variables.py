"""Which settings in force become variables in the files, and which do not.

Owns the reasons for leaving one out, and that no secret is written. A setting that is new in the table is written as
its variable unless it is listed here or names a path. Pure functions. Runs in the command.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ..launch import settings_table as table
from ..launch.settings import DEFAULT, FILE, RawSettings, Settings
from ..launch.settings_table import OTEL_VARIABLES, SETTINGS, Setting
from .paths import inside

# Settings that the files have in another form: as arguments, folders, ports.
_PLACED = frozenset({"entry_script", "model_dir", "config_file", "app_root", "port", "health_port", "rest", "host"})
# Settings that say something about this machine, or about the work at it.
_FOR_DEVELOPMENT = frozenset({"plain", "debug_port", "debug_wait", "debugger_port", "reload", "reload_dir"})
# What the system writes, and no person.
_OF_THE_MACHINE = frozenset({"hostname"})
_PATHS = frozenset({table.PATH, table.RESOLVED_PATH})
# Below AML_APP_ROOT, which is the folder that the files are about.
_RELATIVE = frozenset({"source_directory"})
# Paths that the server reads, so that a copy in an image serves. It writes to the others.
_READ = frozenset({"warmup_samples", "requests_ca_bundle"})
_OTEL_PATHS = ("_CERTIFICATE", "_CLIENT_KEY")
# A URL with a name or a password; for receivers of telemetry also one with a query, which may be a key.
_LOGIN = re.compile(r"://[^/?#\s]*@")
_KEY = re.compile(r"://\S*\?")


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


def carried(given: Settings, raw: RawSettings, app: Path, with_file: bool) -> Carried:
    """The given settings as variables. ``app``: the folder of the script's files; ``with_file``: the configuration file
    goes where the script goes, so its settings need no variables."""
    variables: list[Variable] = []
    secrets: list[str] = []
    notes: list[str] = []
    for setting in SETTINGS:
        origin = given.origins[setting.name]
        if origin.kind == DEFAULT or setting.name in _PLACED | _OF_THE_MACHINE:
            continue
        if origin.kind == FILE and with_file:
            if _may_be_secret(setting, text(getattr(given, setting.name))):
                notes.append(
                    f"{given.config_file_read} has {setting.config_key}, which may be a secret, and goes where the "
                    "script goes: set the variable there instead."
                )
            continue
        if setting.name == "server_version" and given.server_version_log_response_enabled:
            continue  # the variable does not count
        name, value = setting.environment or "", text(getattr(given, setting.name))
        copied = inside(Path(raw.folder, value), app) if setting.name in _READ else None
        reason = None if copied and copied.isprintable() else _reason_to_leave_out(setting, value)
        if reason:
            notes.append(f"{origin.name} is left out: {reason}.")
        elif _may_be_secret(setting, value):
            secrets.append(name)
        elif copied:
            variables.append(Variable(name, copied))
        else:
            variables.append(Variable(name, value))
    for row in OTEL_VARIABLES:
        value = raw.environment.get(row.name, "")
        if not value:
            continue
        if row.secret or _LOGIN.search(value) or _KEY.search(value):
            secrets.append(row.name)
        elif row.name.endswith(_OTEL_PATHS):
            notes.append(f"{row.name} is left out: it names a file of this machine.")
        elif not value.isprintable():
            notes.append(f"{row.name} is left out: its value has a control character.")
        else:
            variables.append(Variable(row.name, value))
    return Carried(tuple(variables), tuple(secrets), tuple(notes))


def _may_be_secret(setting: Setting, value: str) -> bool:
    if setting.kind == table.VARIABLES:
        # What differs between workers is the number of a device, and no secret.
        return any("{worker" not in part for part in value.split(";"))
    return setting.secret or bool(_LOGIN.search(value))


def _reason_to_leave_out(setting: Setting, value: str) -> str | None:
    if setting.name in _FOR_DEVELOPMENT:
        return "it is for development"
    if setting.name in _READ:
        return "it names a path that is not in the folder of the script"
    if setting.kind in _PATHS and setting.name not in _RELATIVE:
        return "it names a folder to write to, which has to be there first"
    return None if value.isprintable() else "its value has a control character"


def text(value: object) -> str:
    """A value as its variable has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
