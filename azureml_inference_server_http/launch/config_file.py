"""The configuration file: finds it, reads it, and names the keys in it that have no effect.

Owns the search order, and the errors about the file as a whole. ``settings.py`` checks its values.
Runs in the launcher. Rules: contract section 3.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from .settings_table import SETTINGS

_SHOWN_KEYS = 20


class ConfigFile(NamedTuple):
    """The configuration file that was read: its path, or None if there is none, its JSON object,
    and warnings."""

    path: str | None
    values: Mapping[str, Any]
    notices: tuple[str, ...]


class ConfigFileError(Exception):
    """The file cannot be used. The text names the file, the fault and the remedy. The launcher
    exits with 3."""


def read_config_file(flags: Mapping[str, Any], environment: Mapping[str, str], folder: str) -> ConfigFile:
    """Read the first of these files that exists and is not empty: the named file, config.json in
    the app root, config.json beside the entry script.

    Raises ConfigFileError if that file does not contain a JSON object.
    """
    candidates = [os.path.join(_app_root(environment, folder), "config.json")]
    script = _script_path(flags, environment, folder)
    if script:
        candidates.append(os.path.join(os.path.dirname(script), "config.json"))
    named = flags.get("config_file") or environment.get("AZUREML_CONFIG_FILE")
    notices: list[str] = []
    if named:
        candidates.insert(0, absolute(folder, named))
        if not _has_bytes(candidates[0]):
            fault = "is empty" if os.path.exists(candidates[0]) else "does not exist"
            notices.append(f"The configuration file {candidates[0]} {fault}: nothing is read from it.")
    for path in candidates:
        if _has_bytes(path):
            return ConfigFile(path, _read_object(path), tuple(notices))
    return ConfigFile(None, {}, tuple(notices))


def _script_path(flags: Mapping[str, Any], environment: Mapping[str, str], folder: str) -> str | None:
    """The path of the entry script, from the option (relative to the current folder) or the
    variable (relative to the app root)."""
    if flags.get("entry_script"):
        return absolute(folder, flags["entry_script"])
    found = any_case_names(environment).get("azureml_entry_script")
    return os.path.join(_app_root(environment, folder), found[1]) if found and found[1] else None


def _has_bytes(path: str) -> bool:
    try:
        return os.stat(path).st_size > 0
    except (OSError, ValueError):
        return False


def _read_object(path: str) -> dict[str, Any]:
    import json

    try:
        with open(path, "rb") as file:
            # "sig": editors of Windows write a byte order mark.
            text = file.read().decode("utf-8-sig")
        found = json.loads(text)
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _unusable(path, f"is not UTF-8 text (byte {error.start + 1})") from error
    except json.JSONDecodeError as error:
        raise _unusable(path, f"is not JSON ({error})") from error
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"is not JSON that can be read ({error})") from error
    if not isinstance(found, dict):
        raise _unusable(path, "does not hold an object")
    return found


def _unusable(path: str, fault: str) -> ConfigFileError:
    return ConfigFileError(
        f'{path} {fault}. It must be UTF-8 text with one JSON object, such as {{"SCORING_TIMEOUT_MS": 60000}}. '
        "Correct it, remove it, or name another file with --config_file."
    )


def any_case_names(environment: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Variables by lower-case name, as (name, value). If names differ only in case, the last one
    counts."""
    return {name.lower(): (name, value) for name, value in environment.items()}


def absolute(folder: str, path: str) -> str:
    """A path from the command line as the environment gets it: absolute, with links resolved
    (contract section 3)."""
    return os.path.realpath(os.path.join(folder, path))


def _app_root(environment: Mapping[str, str], folder: str) -> str:
    return os.path.join(folder, environment.get("AML_APP_ROOT", folder))


def keys_without_effect(config: ConfigFile) -> list[str]:
    """A warning that lists the keys that no setting reads, if there are any."""
    known = {setting.config_key for setting in SETTINGS if setting.config_key}
    idle = [key for key in config.values if key not in known]
    if not idle:
        return []
    shown = ", ".join(_about_key(key, known) for key in idle[:_SHOWN_KEYS]) + (", ..." if idle[_SHOWN_KEYS:] else "")
    return [f"Keys in {config.path} that have no effect: {shown}"]


def _about_key(key: str, known: set[str]) -> str:
    if key.upper() in known:
        return f"{key!r} (write it {key.upper()})"
    if any(key == setting.environment for setting in SETTINGS):
        return f"{key!r} (an environment variable, not read from a file)"
    return repr(key)
