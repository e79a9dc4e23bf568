"""Resolves settings: takes the given values (``RawSettings``), and returns the values in force
(frozen ``Settings``).

Owns the precedence (option, then environment, then configuration file, then default), and the
variables that are exported to the script. ``settings_table.py`` owns names, defaults and ranges,
``setting_values.py`` the syntax of values, ``config_file.py`` the configuration file. Functions
here read no environment and print nothing: the environment is an argument. Runs in the launcher,
and every other process gets the result. Rules: contract section 3.

One file of more than 400 lines, because ``Settings`` names every row of the table.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Callable, NamedTuple

import azureml_inference_server_http as package

from . import connection_string, otlp, setting_values, worker_environment
from . import settings_table as table
from .config_file import ConfigFile, absolute, any_case_names, keys_without_effect, read_config_file
from .cores import Cores, usable
from .display import Display
from .otlp import Otlp
from .settings_table import SETTINGS, Setting

_SHOWN_VALUE = 80
# The prefix of variables that 1.5.1 does not have.
_PREFIX = "AZMLINFSRV_"


OPTION, ENVIRONMENT, FILE, DEFAULT = "option", "environment variable", "key", "default"


class RawSettings(NamedTuple):
    """The given values before they are interpreted. ``flags`` has only the options that were typed;
    ``folder`` is the current folder, ``cores`` finds out how many cores there are, and is called if
    that is asked for."""

    flags: Mapping[str, Any]
    environment: Mapping[str, str]
    folder: str
    cores: Callable[[], Cores] = usable


class Origin(NamedTuple):
    """The source of a value: ``kind`` is one of the constants above, ``name`` is the option,
    variable or key."""

    kind: str
    name: str


class SettingsError(Exception):
    """Some values are refused. ``lines`` has one sentence for each. The launcher exits with 1."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


class Settings(NamedTuple):
    """All settings in force. Each attribute is a row of ``settings_table.py``, which has its
    meaning."""

    entry_script: str | None
    model_dir: str
    config_file: str | None
    worker_count: int
    worker_timeout: int
    port: int
    health_port: int
    app_insights_enabled: bool
    app_insights_key: str | None
    server_version: str
    cors_origins: str | None
    separate_health: bool
    host: str
    app_root: str
    source_directory: str | None
    rest: bool
    worker_preload: bool
    scoring_timeout_ms: int
    max_queue: int
    max_request_size: int
    graceful_timeout: int
    queue_timeout: float
    max_buffered: int
    client_timeout: float
    min_body_rate: int
    keep_alive: float
    worker_class: str
    max_concurrency: int
    max_batch_size: int
    batch_wait_ms: int
    worker_threads: int
    worker_env: str | None
    init_concurrency: int
    warmup_samples: str | None
    thread_pools: str
    max_requests: int
    max_worker_rss: int
    error_details: bool
    client_errors: bool
    plain: bool
    log_level: str
    log_format: str
    access_log: str
    trusted_proxies: str | None
    protocols: str
    model_name: str
    debug_port: int | None
    debug_wait: bool
    reload: bool
    reload_dir: str | None
    debugger_port: int | None
    docs: bool
    record: str | None
    record_count: int
    record_body_size: int
    metrics: str
    server_version_log_response_enabled: bool
    app_insights_connection_string: str | None
    app_insights_endpoint: str
    telemetry_storage: str | None
    otel_sdk_disabled: bool
    otel_bsp_schedule_delay: int
    requests_ca_bundle: str | None
    app_insights_log_response_enabled: bool
    mdc_storage_enabled: bool
    service_name: str
    service_version: str
    service_path_prefix: str
    workspace_name: str
    hostname: str

    # What is exported by OTLP.
    otlp: Otlp
    # True if Application Insights was asked for, even if its key is not valid.
    app_insights_requested: bool
    # The source of each value, by attribute.
    origins: Mapping[str, Origin]
    # Warnings for the log about values that were given but have no effect.
    notices: tuple[str, ...]
    # The cores that made the number of workers (WORKER_COUNT=auto); None for a given number.
    cores: Cores | None
    # The configuration file that was read, named or found.
    config_file_read: str | None
    # What the terminal gets; the launcher decides on that.
    display: Display = Display()

    @property
    def model_version(self) -> str:
        """The only version of the model."""
        return "1"

    @property
    def serves_v2(self) -> bool:
        """Whether the script is served by the Open Inference Protocol too."""
        return table.V2 in self.protocols.split(",")

    @property
    def infer_path(self) -> str:
        """Where requests of that protocol go."""
        from urllib.parse import quote

        return f"/v2/models/{quote(self.model_name)}/infer"

    @property
    def counts_metrics(self) -> bool:
        """Whether the server counts, for GET /metrics or for OTLP."""
        return self.metrics != table.METRICS_OFF or (self.otlp.metrics is not None and not self.otel_sdk_disabled)

    @property
    def calls_at_once(self) -> int:
        """Calls of a plain run() that the server runs at once."""
        return self.worker_count * self.worker_threads

    @property
    def exports_telemetry(self) -> bool:
        """Whether anything about requests is sent anywhere, and what the script logs."""
        is_on = self.app_insights_enabled or self.otlp.traces is not None or self.otlp.logs is not None
        return is_on and not self.otel_sdk_disabled

    def __repr__(self) -> str:
        # Secrets are hidden, because this text may get into logs and tracebacks.
        secrets = {
            setting.name: getattr(self, setting.name) and "***" for setting in SETTINGS if table.is_hidden(setting)
        }
        shown = {**self._asdict(), **secrets}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


def load(raw: RawSettings) -> Settings:
    """Read the configuration file, if there is one, and resolve all settings. Raises
    ConfigFileError, SettingsError."""
    return resolve(raw, read_config_file(raw.flags, raw.environment, raw.folder))


# ---- Resolving


def resolve(raw: RawSettings, config: ConfigFile) -> Settings:
    """Resolve the settings from all sources. Raises SettingsError with every refused value. A value
    that a stronger source overrides is not checked."""
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    problems: list[str] = []
    notices = [*config.notices, *keys_without_effect(config)]
    notices += _variables_without_effect(raw.environment)
    environment = any_case_names(raw.environment)
    for setting in SETTINGS:
        given, origin = _find(setting, raw, environment, config)
        origins[setting.name] = origin
        if origin.kind in (DEFAULT, OPTION):
            values[setting.name] = given
            continue
        try:
            values[setting.name] = setting_values.parse(setting, given)
        except ValueError as error:
            values[setting.name] = setting.default
            if setting.kind in table.WRONG_MEANS_DEFAULT:
                notices.append(_ignored(setting, given, origin, config))
            else:
                problems.append(_refusal(setting, given, origin, config, error))
        if setting.kind in (table.EXACT_TRUE, table.ANY_CASE_TRUE):
            notices += _doubtful(setting, given, origin)
    notices += _settle_app_insights(values, origins)
    values["otlp"], unusable = otlp.resolve(raw.environment, values["service_name"])
    if not values["otel_sdk_disabled"]:
        notices += unusable
    elif values["app_insights_enabled"] or values["otlp"].sends:
        notices.append("OTEL_SDK_DISABLED is true, so no telemetry is sent.")
    if values["otlp"].logs_delay_ms is not None:
        shorter = min(values["otel_bsp_schedule_delay"], values["otlp"].logs_delay_ms)
        values["otel_bsp_schedule_delay"] = shorter
    problems += _combine(values, origins, raw)
    if problems:
        raise SettingsError(problems)
    if values["record"] is None:
        for name in ("record_count", "record_body_size"):
            if origins[name].kind != DEFAULT:
                notices.append(f"{origins[name].name} has no effect without --record.")
    if values["init_concurrency"] and values["worker_preload"]:
        notices.append(
            f"{origins['init_concurrency'].name} has no effect with WORKER_PRELOAD: the script is loaded once."
        )
    if origins["model_name"].kind != DEFAULT and table.V2 not in values["protocols"]:
        notices.append(f"{origins['model_name'].name} has no effect without --protocols score,v2.")
    if values["reload_dir"] is not None and not values["reload"]:
        notices.append(f"{origins['reload_dir'].name} has no effect without --reload.")
    if values["worker_class"] == table.THREAD:
        notices += _settle_for_threads(values, origins)
    values["cores"] = None
    if values["worker_count"] == table.AUTO:
        values["cores"] = raw.cores()
        values["worker_count"] = values["cores"].number
    if values["debug_port"] is not None:
        notices += _settle_for_debugger(values, origins)
    elif values["debug_wait"]:
        notices.append(f"{origins['debug_wait'].name} has no effect without --debug_port.")
    return Settings(**values, origins=MappingProxyType(origins), notices=tuple(notices), config_file_read=config.path)


def _find(
    setting: Setting, raw: RawSettings, any_case: Mapping[str, tuple[str, str]], config: ConfigFile
) -> tuple[Any, Origin]:
    """The value from the strongest source that has one, and that source. An option's value has been
    parsed before."""

    def is_given(value: object) -> bool:
        if value is None:
            return False
        return not (isinstance(value, str) and not value.strip() and table.blank_means_unset(setting))

    typed = raw.flags.get(setting.name)
    if setting.flag and typed is not None and not (typed == "" and setting.kind == table.RESOLVED_PATH):
        path = setting.kind == table.RESOLVED_PATH
        return (absolute(raw.folder, typed) if path else typed), Origin(OPTION, setting.flag)
    name = setting.environment
    if name and setting.any_case and name.lower() in any_case:
        name, value = any_case[name.lower()]
        if is_given(value):
            return value, Origin(ENVIRONMENT, name)
    elif name and not setting.any_case and is_given(raw.environment.get(name)):
        return raw.environment[name], Origin(ENVIRONMENT, name)
    if setting.config_key and is_given(config.values.get(setting.config_key)):
        return config.values[setting.config_key], Origin(FILE, setting.config_key)
    return setting.default, Origin(DEFAULT, "")


def _combine(values: dict[str, Any], origins: dict[str, Origin], raw: RawSettings) -> list[str]:
    """Set the values that depend on other settings. Returns a sentence for each conflict."""
    if values["app_root"] is None:
        values["app_root"] = raw.folder
    if values["model_name"] is None:
        values["model_name"] = _stem(values["entry_script"])
    if values["server_version_log_response_enabled"]:
        values["server_version"] = f"azmlinfsrv/{package.__version__}"
    if values["worker_class"] == table.PROCESS and sys.platform == "win32":
        return ["--worker_class process needs fork(), which Windows does not have: leave the option out, or use thread"]
    if values["worker_threads"] > 1 and values["worker_class"] == table.THREAD:
        name = origins["worker_threads"].name
        return [
            f"{name}={values['worker_threads']} needs --worker_class process"
            + (", which Windows does not have" if sys.platform == "win32" else "")
            + ": with --worker_class thread, --worker_count (WORKER_COUNT) is the number of threads that call run()"
        ]
    if values["worker_threads"] > 1 and values["max_batch_size"] > 1:
        names = origins["worker_threads"].name, origins["max_batch_size"].name
        return [
            f"{names[0]} and {names[1]} cannot be combined, because with one of them each request has a call of its "
            "own, and with the other requests share a call: leave one out"
        ]
    if values["worker_env"] is not None:
        problem = _worker_env(values, origins)
        if problem is not None:
            return [problem]
    if values["debug_port"] is not None and values["debugger_port"]:
        name = origins["debugger_port"].name
        return [f"{name} connects to a debugger, and --debug_port waits for one to attach: give one of the two"]
    if not values["separate_health"]:
        values["health_port"] = values["port"]
    elif values["health_port"] == values["port"] != 0:
        port = values["port"]
        return [f"--port and --health_port are both {port}: with SEPERATE_HEALTH_ENDPOINT=true they must differ"]
    return []


def _worker_env(values: Mapping[str, Any], origins: Mapping[str, Origin]) -> str | None:
    """Why each worker process cannot get the variables of --worker_env; None if it can."""
    name = origins["worker_env"].name
    if values["worker_class"] == table.THREAD:
        return (
            f"{name} needs --worker_class process, because threads share the variables of their process: leave out "
            "one of the two"
        )
    if values["worker_preload"]:
        return (
            f"{name} cannot be combined with WORKER_PRELOAD, because the script is loaded once, before there are "
            "workers: leave out one of the two"
        )
    try:
        worker_environment.parse(values["worker_env"])
    except worker_environment.EntryError as error:  # each option alone was accepted
        return f"{name} is not allowed: {error}"
    return None


def _stem(entry_script: str | None) -> str:
    """The name of the script, which is the same wherever its folder is. Without one the module main is served."""
    name = os.path.basename(entry_script or "")
    return os.path.splitext(name)[0] or "main"


def _settle_app_insights(values: dict[str, Any], origins: dict[str, Origin]) -> list[str]:
    """Settle which key counts, where items go, and whether Application Insights is on. Returns what is wrong with a
    connection string, as sentences for the log: telemetry must not keep the script from being served."""
    notices: list[str] = []
    key, text = values["app_insights_key"], values["app_insights_connection_string"]
    for name in ("app_insights_connection_string", "app_insights_key"):
        if origins[name].kind == OPTION:
            values["app_insights_enabled"] = True
            origins["app_insights_enabled"] = origins[name]
    requested = values["app_insights_enabled"] and (key is not None or text is not None)
    if values["app_insights_enabled"] and not requested:
        notices.append(
            f"{origins['app_insights_enabled'].name} has no effect without a key: set AML_APP_INSIGHTS_KEY or "
            "APPLICATIONINSIGHTS_CONNECTION_STRING."
        )
    if not connection_string.is_url(values["app_insights_endpoint"]):
        values["app_insights_endpoint"] = connection_string.DEFAULT_ENDPOINT
    if requested and text is not None:
        origin = origins["app_insights_connection_string"]
        try:
            given = connection_string.parse(text)
        except connection_string.ConnectionStringError as error:
            notices.append(f"{origin.name} cannot be used: {error}. Application Insights is off.")
            given, key = connection_string.ConnectionString(None, None), None
        own_key_counts = key is not None and not (origin.kind == OPTION and origins["app_insights_key"].kind != OPTION)
        if not own_key_counts:
            key = given.key
            if key is None and not notices:
                notices.append(f"{origin.name} has no InstrumentationKey. Application Insights is off.")
        values["app_insights_endpoint"] = given.endpoint or values["app_insights_endpoint"]
    if key is not None:
        values["app_insights_key"] = key
    values["app_insights_requested"] = requested
    values["app_insights_enabled"] = bool(requested and key is not None and connection_string.is_key(key))
    return notices


# Settings that have no effect with threads, and the reason.
_FOR_PROCESSES = {
    "worker_preload": "threads always share one copy of the script",
    "max_requests": "a new thread would have the memory of the old one",
    "max_worker_rss": "a new thread would have the memory of the old one",
    "init_concurrency": "threads always share one copy of the script",
    "reload": "threads share one interpreter, which cannot load a script again beside the first one",
}


def _settle_for_threads(values: dict[str, Any], origins: Mapping[str, Origin]) -> list[str]:
    """Turn off the settings that work only with processes. Returns a sentence for each that was
    turned on."""
    notices = []
    for name, reason in _FOR_PROCESSES.items():
        if values[name]:
            values[name] = type(values[name])(0)
            where = "on Windows, where workers are threads" if sys.platform == "win32" else "with --worker_class thread"
            notices.append(f"{origins[name].name} has no effect {where}: {reason}.")
    return notices


# What a worker that people debug must not have: a limit that ends a call, and reasons to be
# replaced.
_UNLIMITED_UNDER_DEBUGGER = ("scoring_timeout_ms", "worker_timeout", "max_requests", "max_worker_rss")


def _settle_for_debugger(values: dict[str, Any], origins: Mapping[str, Origin]) -> list[str]:
    """One worker without limits, for --debug_port. Returns a sentence about each setting that was
    given otherwise."""
    notices = []
    if values["worker_count"] != 1:
        given = f"{origins['worker_count'].name}={values['worker_count']}"
        notices.append(f"{given} counts as 1, because --debug_port debugs one worker.")
        values["worker_count"] = 1
    for name in _UNLIMITED_UNDER_DEBUGGER:
        if values[name] and origins[name].kind != DEFAULT:
            notices.append(f"{origins[name].name} has no effect with --debug_port: a debugger may hold the worker.")
        values[name] = 0
    if values["reload"]:
        notices.append(
            f"{origins['reload'].name} has no effect with --debug_port: a successor would need the same port."
        )
        values["reload"] = False
    return notices


# ---- Messages


def _refusal(setting: Setting, given: object, origin: Origin, config: ConfigFile, error: ValueError) -> str:
    shown, source = _shown(setting, given, origin, config)
    reason, allowed = setting_values.reason(error), table.allowed_text(setting)
    return f"{table.label(setting)}={shown} is not allowed{reason}: it must be {allowed} ({source})"


def _ignored(setting: Setting, given: object, origin: Origin, config: ConfigFile) -> str:
    """The warning about a wrong value that the default replaces."""
    shown, source = _shown(setting, given, origin, config)
    return (
        f"{table.label(setting)}={shown} is ignored, and the default {table.default_text(setting)} is used: it must be "
        f"{table.allowed_text(setting)} ({source})."
    )


def _shown(setting: Setting, given: object, origin: Origin, config: ConfigFile) -> tuple[str, str]:
    """The shortened text of a value, and the text of its source."""
    import json

    shown = "***" if table.is_hidden(setting) else json.dumps(given) if origin.kind == FILE else repr(given)
    if len(shown) > _SHOWN_VALUE:
        shown = shown[: _SHOWN_VALUE - 3] + "..."
    return shown, f"{origin.kind} {origin.name}" + (f" in {config.path}" if origin.kind == FILE else "")


def _doubtful(setting: Setting, given: str, origin: Origin) -> list[str]:
    """A warning for a word such as "True" or "1" that counts as off: only one spelling turns this
    setting on, and the user probably meant on."""
    on = setting_values.parse(setting, given)
    if on or given == "" or setting_values.word(given) is False:
        return []
    spelling = "exactly true" if setting.kind == table.EXACT_TRUE else "true"
    return [f"{origin.name}={given!r} counts as off: only {spelling} turns it on."]


def _variables_without_effect(environment: Mapping[str, str]) -> list[str]:
    """A warning for each variable with the prefix of this server that no setting reads."""
    ours = {setting.environment for setting in SETTINGS}
    return [
        f"The environment variable {name} has no effect: there is no such setting.{_meant_by(name)}"
        for name in environment
        if name.upper().startswith(_PREFIX) and name not in ours
    ]


def _meant_by(name: str) -> str:
    """A question that names the setting which this variable resembles, or an empty text. The
    setting may have another prefix, or only an option."""
    import difflib

    meant = {}
    for setting in SETTINGS:
        if not setting.hidden:
            for known in filter(None, (setting.flag, setting.environment)):
                bare = known.lstrip("-").upper()
                meant[bare[len(_PREFIX) :] if bare.startswith(_PREFIX) else bare] = table.label(setting)
    close = difflib.get_close_matches(name.upper()[len(_PREFIX) :], meant, 1)
    return f" Did you mean {meant[close[0]]}?" if close else ""


# ---- Variables for the script


def exported_environment(settings: Settings) -> dict[str, str]:
    """The variables that the caller must set for the script (contract section 3, last item).

    They have values of options and values that the server has computed. Values from the
    configuration file are not exported.
    """
    exported = {}
    for setting in SETTINGS:
        when = {
            table.NEVER: False,
            table.ALWAYS: True,
            table.FROM_OPTION: settings.origins[setting.name].kind == OPTION,
            table.WITH_OWN_VERSION: settings.server_version_log_response_enabled,
        }
        if setting.exports and when[setting.exported]:
            exported[setting.exports] = _environment_text(getattr(settings, setting.name))
    exported["TRANSPORT_PROTOCOL"] = "rest" if settings.rest else "grpc"
    exported["SERVER_SOFTWARE"] = f"azmlinfsrv/{package.__version__}"
    return exported


def _environment_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
