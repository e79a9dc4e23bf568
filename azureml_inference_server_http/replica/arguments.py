"""The arguments of the application: settings of the server by their names, and what Serve needs to know.

Owns names, defaults and refusals. They are all checked before anything is deployed, because Serve itself would show a
wrong one only as a deployment that fails. Pure functions, without Ray. Runs where the application is built.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..launch import setting_values
from ..launch import settings_table as table
from ..launch.capacity import requests_at_once
from ..launch.config_file import ConfigFileError
from ..launch.settings import RawSettings, Settings, SettingsError, load
from ..launch.settings_table import SETTINGS, Setting

_SETTINGS = {setting.name: setting for setting in SETTINGS}
_PREFIX = "azmlinfsrv_"


def _names_of(setting: Setting) -> Iterator[str]:
    """What users may call the setting: its own name, that of its option, and that of its variable, also without the
    prefix."""
    yield setting.name
    if setting.flag:
        yield setting.flag.lstrip("-")
    if setting.environment:
        variable = setting.environment.lower()
        yield variable
        if variable.startswith(_PREFIX):
            yield variable[len(_PREFIX) :]


_VARIABLES = {setting.environment.lower(): setting.name for setting in SETTINGS if setting.environment}
_NAMES = {name: setting.name for setting in SETTINGS for name in _names_of(setting)}
# Settings that a replica decides, or that make no sense in it.
TAKEN = {
    **dict.fromkeys(("host", "port", "health_port", "separate_health"), "Ray Serve has the port that clients use"),
    **dict.fromkeys(
        ("debug_port", "debug_wait", "debugger_port", "reload", "reload_dir", "plain"), "it is for development"
    ),
    "record": "the replicas of a machine would write to one folder",
}
# Seconds beyond --graceful_timeout in which the server ends.
STOP_MARGIN = 10
# Requests that Serve may give to a replica, for each that its server works at: one runs, one is ready to follow. With
# many more, the proxy of a node would give all requests to the replicas beside it.
ONGOING_PER_CALL = 2


class Option(NamedTuple):
    """An argument for Serve. ``kind`` is the kind of a setting, ``minimum`` its least value."""

    kind: str
    minimum: float
    help: str


OPTIONS: dict[str, Option] = {
    "num_replicas": Option(table.INTEGER, 1, "Servers in the cluster, or auto: as many as the requests need."),
    "min_replicas": Option(table.INTEGER, 0, "With num_replicas=auto: the fewest. Default: 1."),
    "max_replicas": Option(table.INTEGER, 1, "With num_replicas=auto: the most. Default: 10."),
    "target_ongoing_requests": Option(
        table.NUMBER,
        0.01,
        "With num_replicas=auto: requests in a replica, on average. Default: as many as its server works at together.",
    ),
    # Ray wants more than ten seconds, because replicas report every ten.
    "look_back_period_s": Option(
        table.NUMBER, 11, "With num_replicas=auto: seconds over which requests are averaged. Default: Serve's."
    ),
    "upscale_delay_s": Option(table.NUMBER, 0, "With num_replicas=auto: seconds before replicas are added."),
    "downscale_delay_s": Option(table.NUMBER, 0, "With num_replicas=auto: seconds before replicas are removed."),
    "max_ongoing_requests": Option(
        table.INTEGER,
        1,
        "Requests that a replica may have; more wait in Serve. Default: twice as many as its server works at together.",
    ),
    "max_queued_requests": Option(table.INTEGER, 1, "Requests that may wait in each proxy. Default: no limit."),
    "num_cpus": Option(table.NUMBER, 0, "Processors that Ray reserves for a replica. Default: worker_count."),
    "num_gpus": Option(table.NUMBER, 0, "GPUs that Ray reserves for a replica. Default: 0."),
    "memory": Option(table.INTEGER, 1, "Bytes of memory that Ray reserves for a replica. Default: none."),
}
_AUTO_ONLY = (
    *("min_replicas", "max_replicas", "target_ongoing_requests"),
    *("look_back_period_s", "upscale_delay_s", "downscale_delay_s"),
)
# A mapping of further variables for the script.
ENVIRONMENT = "environment"


class ArgumentsError(ValueError):
    """Some arguments are refused. The text has a line for each."""


class Plan(NamedTuple):
    """What a replica does: options and variables of its server, and how Serve deploys it. ``has_metrics``: the server
    counts, so Ray's exporter gets its metrics."""

    options: tuple[str, ...]
    variables: dict[str, str]
    graceful: int
    keep_alive: float
    has_metrics: bool
    deployment: dict[str, Any]


def resolve(args: Mapping[str, Any], folder: str) -> Plan:
    """Check the arguments. ``folder``: where the files of the application are. Raises ArgumentsError."""
    problems: list[str] = []
    given: dict[str, Any] = {}
    serve: dict[str, Any] = {}
    environment: dict[str, str] = {}
    for name, value in args.items():
        try:
            if not isinstance(name, str):
                raise ArgumentsError(f"there is no argument {name!r}: in YAML, quote a name such as on")
            if name == ENVIRONMENT:
                environment = _environment(value)
            elif name in OPTIONS:
                serve[name] = _option(name, value)
            else:
                setting = _setting(name)
                if setting.name in given:
                    raise ArgumentsError(f"{name} is given twice: it means {setting.name}")
                given[setting.name] = _value(name, setting, value)
        except ArgumentsError as error:
            problems.append(str(error))
    if not problems:
        problems += _missing(given, folder)
        problems += [f"{name} counts only with num_replicas=auto" for name in _auto_only(serve)]
        problems += _settle_auto(given, serve)
    if problems:
        raise ArgumentsError("\n".join(problems))
    root = {"AML_APP_ROOT": given["app_root"]} if given.get("app_root") else {}
    try:
        # With the variables and the configuration file, because the server will read them too.
        settings = load(RawSettings(given, {**environment, **root}, folder))
    except (SettingsError, ConfigFileError) as error:
        raise ArgumentsError(str(error)) from error
    if settings.cores is not None:
        raise ArgumentsError(f"{ENVIRONMENT} has WORKER_COUNT=auto: give worker_count=auto with num_cpus in its place")
    deployment = _deployment(serve, settings, requests_at_once(settings, Path(folder, given["entry_script"])))
    options, variables = _command_line(given)
    return Plan(
        options,
        {"OMP_NUM_THREADS": _threads(deployment, settings), **environment, **variables},
        settings.graceful_timeout,
        settings.keep_alive,
        settings.metrics != table.METRICS_OFF,
        deployment,
    )


# ---- Values


def _setting(name: str) -> Setting:
    setting = _SETTINGS.get(_NAMES.get(name.lower(), ""))
    if setting is None:
        close = difflib.get_close_matches(name, [*_SETTINGS.keys() - TAKEN.keys(), *OPTIONS, ENVIRONMENT], 1)
        raise ArgumentsError(f"there is no argument {name}" + (f": did you mean {close[0]}?" if close else ""))
    if setting.name in TAKEN:
        raise ArgumentsError(f"{name} cannot be set here: {TAKEN[setting.name]}")
    return setting


def _value(name: str, setting: Setting, value: Any) -> Any:
    try:
        return setting_values.parse(setting, _native(setting, value))
    except (ValueError, AttributeError):
        shown = "***" if table.is_hidden(setting) else repr(value)
        raise ArgumentsError(f"{name}={shown} is not allowed: it must be {table.allowed_text(setting)}") from None


def _native(setting: Setting, value: Any) -> Any:
    """The value as its parser takes it: some kinds know only the texts of variables."""
    is_word = setting.kind in (table.EXACT_TRUE, table.ANY_CASE_TRUE)
    return str(value).lower() if is_word and isinstance(value, bool) else value


def _option(name: str, value: Any) -> Any:
    option = OPTIONS[name]
    if name == "num_replicas" and value == "auto":
        return value
    row = Setting(name=name, group="", kind=option.kind, help="", minimum=option.minimum)
    try:
        return setting_values.parse(row, value)
    except ValueError:
        words = "a whole number" if option.kind == table.INTEGER else "a number"
        auto = " or auto" if name == "num_replicas" else ""
        raise ArgumentsError(
            f"{name}={value!r} is not allowed: it must be {words} of {option.minimum:g} or more{auto}"
        ) from None


def _environment(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise ArgumentsError(f"{ENVIRONMENT} is not allowed: it must be a mapping of texts to texts")
    for name in value:
        setting = _VARIABLES.get(name.lower(), "")
        if setting in TAKEN:
            raise ArgumentsError(f"{ENVIRONMENT} has {name}, which cannot be set here: {TAKEN[setting]}")
    return dict(value)


def _missing(given: Mapping[str, Any], folder: str) -> list[str]:
    if not given.get("entry_script"):
        return ["entry_script is missing: name the scoring script, as in entry_script=score.py"]
    path = os.path.join(folder, given["entry_script"])
    if not os.path.isfile(path):
        return [
            f"entry_script={given['entry_script']!r}: there is no such file in {folder}, the folder of --working-dir"
        ]
    return []


def _auto_only(serve: Mapping[str, Any]) -> list[str]:
    return [name for name in _AUTO_ONLY if name in serve and serve.get("num_replicas") != "auto"]


def _settle_auto(given: dict[str, Any], serve: Mapping[str, Any]) -> list[str]:
    """Turn ``worker_count=auto`` into a number. A server would count the processors of its node, which are not all
    reserved for its replica. Returns problems; also about a number of replicas."""
    problems = []
    if given.get("worker_count") == table.AUTO:
        given["worker_count"] = int(serve.get("num_cpus", 0))
        if given["worker_count"] < 1:
            problems.append("worker_count=auto needs num_cpus of 1 or more, the processors of a replica")
    least, most = serve.get("min_replicas"), serve.get("max_replicas")
    if least is not None and most is not None and least > most:
        problems.append(f"min_replicas={least} is more than max_replicas={most}")
    return problems


# ---- The plan


def _deployment(serve: Mapping[str, Any], settings: Settings, calls: int) -> dict[str, Any]:
    """The options of ``serve.deployment``. ``calls``: requests that the server works at together."""
    actor = {"num_cpus": serve.get("num_cpus", settings.worker_count), "num_gpus": serve.get("num_gpus", 0)}
    if "memory" in serve:
        actor["memory"] = serve["memory"]
    options: dict[str, Any] = {
        "name": "score",
        "max_ongoing_requests": serve.get("max_ongoing_requests", ONGOING_PER_CALL * calls),
        "max_queued_requests": serve.get("max_queued_requests", -1),
        "graceful_shutdown_timeout_s": settings.graceful_timeout + STOP_MARGIN,
        "health_check_period_s": 2,
        "health_check_timeout_s": 10,
        "ray_actor_options": actor,
    }
    if serve.get("num_replicas") != "auto":
        return {**options, "num_replicas": serve.get("num_replicas", 1)}
    scaling = {name: serve[name] for name in _AUTO_ONLY if name in serve}
    least = scaling.setdefault("min_replicas", 1)
    scaling.setdefault("max_replicas", max(10, least))
    scaling.setdefault("target_ongoing_requests", calls)
    return {**options, "autoscaling_config": scaling}


def _threads(deployment: Mapping[str, Any], settings: Settings) -> str:
    """OMP_NUM_THREADS. Ray sets it to the processors of the replica, but they are for all workers together."""
    return str(max(1, int(deployment["ray_actor_options"]["num_cpus"] / settings.worker_count)))


def _command_line(given: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The options of the command, and the variables of settings. Paths are options, because the server then makes them
    absolute."""
    options = ["--plain", "--host", "127.0.0.1", "--port", "0"]
    variables = {"SEPERATE_HEALTH_ENDPOINT": "false"}
    for name, value in given.items():
        setting = _SETTINGS[name]
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if setting.flag and setting.kind in (table.PATH, table.RESOLVED_PATH):
            options += [setting.flag, text]
        elif setting.environment:
            variables[setting.environment] = text
        elif value:  # --rest, the one setting without a variable
            options.append(setting.flag or "")
    return tuple(options), variables
