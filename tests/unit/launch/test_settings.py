"""From the given values to the settings in force: precedence, paths, and settings that depend on each
other (contract section 3).

Needs no server: the environment is a dictionary and the current folder a temporary one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from resolving import Load, example, refusals

from azureml_inference_server_http.launch import settings
from azureml_inference_server_http.launch.settings import SettingsError, exported_environment
from azureml_inference_server_http.launch.settings_table import SETTINGS, Setting

KEY = "0AAAAAAA-0000-0000-0000-00000000000f"


# ---- Precedence


SETTLED_TOGETHER = {"server_version", "health_port", "app_insights_enabled", "app_insights_endpoint", "config_file"}
PLAIN = [setting for setting in SETTINGS if setting.name not in SETTLED_TOGETHER]


@pytest.mark.parametrize("setting", PLAIN, ids=lambda setting: setting.name)
def test_option_over_environment_over_file_over_default(load: Load, setting: Setting) -> None:
    def value(**given: Any) -> Any:
        return getattr(load(**given), setting.name)

    file_text, in_file = example(setting, 1)
    environment_text, in_environment = example(setting, 2)
    typed = example(setting, 3)[1]

    default = value()
    file = {"foo": 1} if setting.config_key is None else {setting.config_key: file_text}
    expected = default if setting.config_key is None else in_file
    assert value(file=file) == expected
    if setting.environment:
        expected = in_environment
        assert value(file=file, environment={setting.environment: environment_text}) == expected
    environment = {} if setting.environment is None else {setting.environment: environment_text}
    if setting.flag:
        assert typed != default
        assert value(file=file, environment=environment, flags={setting.name: typed}) == typed


@pytest.mark.parametrize(
    "setting", [setting for setting in SETTINGS if setting.environment], ids=lambda setting: setting.name
)
def test_names_in_another_case_count_for_marked_variables_only(load: Load, setting: Setting) -> None:
    text, _ = example(setting, 1)
    name = (setting.environment or "").lower()
    origin = load(environment={name: text}).origins[setting.name]
    assert origin == (("environment variable", name) if setting.any_case else ("default", ""))


def test_of_names_that_differ_in_case_the_last_counts(load: Load) -> None:
    assert load(environment={"SCORING_TIMEOUT_MS": "1", "scoring_timeout_ms": "2"}).scoring_timeout_ms == 2
    assert load(environment={"scoring_timeout_ms": "2", "SCORING_TIMEOUT_MS": "1"}).scoring_timeout_ms == 1


def test_an_overridden_value_is_not_looked_at(load: Load) -> None:
    resolved = load(
        flags={"worker_count": 2},
        environment={"WORKER_COUNT": "abc", "SCORING_TIMEOUT_MS": "9"},
        file={"SCORING_TIMEOUT_MS": "junk"},
    )
    assert (resolved.worker_count, resolved.scoring_timeout_ms) == (2, 9)


def test_port_ignores_its_variable(load: Load) -> None:
    assert load(environment={"SERVER_PORT": "8000", "PORT": "8000"}).port == 5001


def test_null_in_the_file_is_absent(load: Load) -> None:
    assert load(file={"SCORING_TIMEOUT_MS": None, "SERVICE_NAME": None}).service_name == "ML service"


def test_settings_are_frozen(load: Load) -> None:
    resolved = load()
    with pytest.raises(AttributeError):
        resolved.port = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        resolved.origins["port"] = None  # type: ignore[index]


def test_repr_does_not_show_the_key(load: Load) -> None:
    text = repr(load(flags={"app_insights_key": KEY}))
    assert "port=5001" in text
    assert KEY not in text


# ---- Paths


def test_option_paths_are_resolved_and_others_kept(load: Load, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    resolved = load(flags={"entry_script": "link/score.py", "config_file": "link/c.json", "model_dir": "link"})
    real = os.path.realpath(tmp_path / "real")
    assert resolved.entry_script == os.path.join(real, "score.py")
    assert resolved.config_file == os.path.join(real, "c.json")
    assert resolved.model_dir == "link"
    assert load(environment={"AZUREML_ENTRY_SCRIPT": "link/score.py"}).entry_script == "link/score.py"


def test_empty_entry_script_option_counts_as_not_given(load: Load) -> None:
    assert load(flags={"entry_script": ""}, environment={"AZUREML_ENTRY_SCRIPT": "e.py"}).entry_script == "e.py"


def test_app_root_is_the_current_folder_unless_set(load: Load, tmp_path: Path) -> None:
    assert load().app_root == str(tmp_path)
    assert load(environment={"AML_APP_ROOT": "other"}).app_root == "other"


# ---- Settings that depend on each other


@pytest.mark.parametrize("text", ["True", "TRUE", "1", "yes", " true", "", "false"])
def test_separate_health_needs_the_exact_word(load: Load, text: str) -> None:
    resolved = load(flags={"health_port": 5050, "port": 6000}, environment={"SEPERATE_HEALTH_ENDPOINT": text})
    assert (resolved.separate_health, resolved.health_port) == (False, 6000)
    doubtful = text not in ("", "false")
    assert bool(resolved.notices) == doubtful
    if doubtful:
        assert resolved.notices == (f"SEPERATE_HEALTH_ENDPOINT={text!r} counts as off: only exactly true turns it on.",)


def test_separate_health(load: Load) -> None:
    on = {"SEPERATE_HEALTH_ENDPOINT": "true"}
    resolved = load(environment=on)
    assert (resolved.separate_health, resolved.port, resolved.health_port) == (True, 5001, 5000)
    assert load(flags={"health_port": 5050}, environment=on).health_port == 5050
    assert not resolved.notices


@pytest.mark.parametrize(("text", "on"), [("true", True), ("TRUE", True), ("1", False), ("", False), ("no", False)])
def test_preload_needs_the_word_in_any_case(load: Load, text: str, on: bool) -> None:
    resolved = load(environment={"WORKER_PRELOAD": text})
    assert resolved.worker_preload is on
    assert bool(resolved.notices) == (text == "1")


@pytest.mark.parametrize(
    ("flags", "environment", "requested", "enabled"),
    [
        ({}, {}, False, False),
        ({"app_insights_key": KEY}, {}, True, True),
        ({"app_insights_key": KEY}, {"AML_APP_INSIGHTS_ENABLED": "false"}, True, True),
        ({"app_insights_key": "junk"}, {}, True, False),
        ({}, {"AML_APP_INSIGHTS_KEY": KEY}, False, False),
        ({}, {"AML_APP_INSIGHTS_ENABLED": "true"}, False, False),
        ({}, {"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": KEY}, True, True),
        ({}, {"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": f" {KEY}"}, True, False),
        ({}, {"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": KEY.replace("-", "")}, True, False),
        ({}, {"AML_APP_INSIGHTS_ENABLED": "True", "AML_APP_INSIGHTS_KEY": KEY}, False, False),
    ],
)
def test_application_insights(
    load: Load, flags: Mapping[str, str], environment: Mapping[str, str], requested: bool, enabled: bool
) -> None:
    resolved = load(flags=flags, environment=environment)
    assert (resolved.app_insights_requested, resolved.app_insights_enabled) == (requested, enabled)
    assert exported_environment(resolved)["AML_APP_INSIGHTS_ENABLED"] == ("true" if enabled else "false")


@pytest.mark.parametrize(
    ("environment", "is_told"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, True),
        ({"AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": "00000000-0000-0000-0000-000000000000"}, True),
    ],
)
def test_that_all_telemetry_is_off_is_not_silent(load: Load, environment: dict[str, str], is_told: bool) -> None:
    notice = "OTEL_SDK_DISABLED is true, so no telemetry is sent."
    assert (notice in load(environment={**environment, "OTEL_SDK_DISABLED": "True"}).notices) == is_told
    assert notice not in load(environment=environment).notices


@pytest.mark.parametrize(("variable", "told"), [("AML_APP_INSIGHTS_ENABLED", True), ("AML_APP_INSIGHTS_KEY", False)])
def test_application_insights_without_a_key_are_not_silent(load: Load, variable: str, told: bool) -> None:
    notices = load(environment={variable: "true"}).notices
    expected = (
        "AML_APP_INSIGHTS_ENABLED has no effect without a key: set AML_APP_INSIGHTS_KEY or "
        "APPLICATIONINSIGHTS_CONNECTION_STRING.",
    )
    assert notices == (expected if told else ())


OTHER_KEY = "00000000-0000-4000-8000-0000000000aa"
GLOBAL = "https://dc.services.visualstudio.com"


@pytest.mark.parametrize(
    ("flags", "environment", "key", "endpoint"),
    [
        ({"app_insights_connection_string": f"InstrumentationKey={KEY}"}, {}, KEY.lower(), GLOBAL),
        # The variable alone turns nothing on.
        ({}, {"APPLICATIONINSIGHTS_CONNECTION_STRING": f"InstrumentationKey={KEY}"}, None, None),
        # Beside a key it says where to send, as in 1.5.1, and beside the switch alone also with which key.
        (
            {"app_insights_key": KEY},
            {"APPLICATIONINSIGHTS_CONNECTION_STRING": f"InstrumentationKey={OTHER_KEY};IngestionEndpoint=https://a/"},
            KEY,
            "https://a",
        ),
        (
            {},
            {
                "AML_APP_INSIGHTS_ENABLED": "true",
                "APPLICATIONINSIGHTS_CONNECTION_STRING": f"InstrumentationKey={KEY};EndpointSuffix=b",
            },
            KEY.lower(),
            "https://dc.b",
        ),
        # An option counts more than a variable.
        (
            {"app_insights_connection_string": f"InstrumentationKey={KEY}"},
            {"AML_APP_INSIGHTS_KEY": OTHER_KEY},
            KEY.lower(),
            GLOBAL,
        ),
        ({"app_insights_key": KEY}, {"AML_APP_INSIGHTS_ENDPOINT": "https://azure"}, KEY, "https://azure"),
        ({"app_insights_key": KEY}, {"AML_APP_INSIGHTS_ENDPOINT": "none"}, KEY, GLOBAL),
    ],
)
def test_which_key_counts_and_where_it_is_sent(
    load: Load, flags: Mapping[str, str], environment: Mapping[str, str], key: str | None, endpoint: str | None
) -> None:
    resolved = load(flags=flags, environment=environment)
    assert resolved.exports_telemetry == (key is not None)
    if key is not None:
        assert (resolved.app_insights_key, resolved.app_insights_endpoint) == (key, endpoint)
    assert not resolved.notices


@pytest.mark.parametrize("text", ["junk", "InstrumentationKey=junk", "IngestionEndpoint=https://a"])
def test_a_connection_string_that_cannot_be_used_is_a_notice_that_does_not_show_it(load: Load, text: str) -> None:
    resolved = load(flags={"app_insights_connection_string": text})
    assert (resolved.app_insights_requested, resolved.app_insights_enabled) == (True, False)
    [notice] = resolved.notices
    assert notice.startswith("--appinsights_connection_string ")
    assert notice.endswith("Application Insights is off.")
    assert "junk" not in notice
    assert text not in repr(resolved)


@pytest.mark.parametrize(
    ("environment", "version"),
    [
        ({}, "azmlinfsrv/9.8.7"),
        ({"HTTP_X_MS_SERVER_VERSION": "mine"}, "azmlinfsrv/9.8.7"),
        ({"HTTP_X_MS_SERVER_VERSION": "mine", "SERVER_VERSION_LOG_RESPONSE_ENABLED": "TRUE"}, "azmlinfsrv/9.8.7"),
        ({"HTTP_X_MS_SERVER_VERSION": "mine", "SERVER_VERSION_LOG_RESPONSE_ENABLED": "false"}, "mine"),
        ({"SERVER_VERSION_LOG_RESPONSE_ENABLED": "false"}, ""),
    ],
)
def test_server_version(load: Load, environment: Mapping[str, str], version: str) -> None:
    resolved = load(environment=environment)
    assert resolved.server_version == version
    own = version.startswith("azmlinfsrv/")
    assert exported_environment(resolved).get("HTTP_X_MS_SERVER_VERSION") == (version if own else None)


# ---- Worker threads


@pytest.mark.parametrize(
    ("environment", "setting", "left", "reason"),
    [
        ("WORKER_PRELOAD", "worker_preload", False, "threads always share one copy of the script"),
        ("AZMLINFSRV_MAX_REQUESTS", "max_requests", 0, "a new thread would have the memory of the old one"),
        ("AZMLINFSRV_MAX_WORKER_RSS", "max_worker_rss", 0, "a new thread would have the memory of the old one"),
        (
            "AZMLINFSRV_RELOAD",
            "reload",
            False,
            "threads share one interpreter, which cannot load a script again beside the first one",
        ),
    ],
)
def test_what_only_a_process_can_do_is_off_for_threads_and_said(
    load: Load, environment: str, setting: str, left: object, reason: str
) -> None:
    given = {environment: "true" if left is False else "7"}
    resolved = load(environment={**given, "AZMLINFSRV_WORKER_CLASS": "thread"})
    assert getattr(resolved, setting) == left
    assert resolved.notices == (f"{environment} has no effect with --worker_class thread: {reason}.",)
    assert load(environment=given).notices == ()


def test_a_worker_class_has_one_of_two_names(load: Load) -> None:
    (line,) = refusals(load, environment={"AZMLINFSRV_WORKER_CLASS": "gevent"})
    assert line == (
        "AZMLINFSRV_WORKER_CLASS='gevent' is not allowed: it must be process or thread "
        "(environment variable AZMLINFSRV_WORKER_CLASS)"
    )


def test_windows_has_no_worker_processes(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.sys, "platform", "win32")
    (line,) = refusals(load, environment={"AZMLINFSRV_WORKER_CLASS": "process"})
    assert "needs fork(), which Windows" in line


def test_windows_takes_threads_without_a_word(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.sys, "platform", "win32")
    assert load(environment={"AZMLINFSRV_WORKER_CLASS": "thread"}).notices == ()


@pytest.mark.parametrize(
    ("name", "value"), [("WORKER_PRELOAD", "true"), ("AZMLINFSRV_MAX_REQUESTS", "5"), ("AZMLINFSRV_RELOAD", "1")]
)
def test_a_setting_that_means_nothing_on_windows_is_named(
    load: Load, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr(settings.sys, "platform", "win32")
    (notice,) = load(environment={name: value, "AZMLINFSRV_WORKER_CLASS": "thread"}).notices
    assert notice.startswith(f"{name} has no effect on Windows, where workers are threads: ")


# ---- --worker_threads


def test_threads_of_worker_processes_are_not_combined_with_worker_threads(load: Load) -> None:
    with pytest.raises(SettingsError, match=r"--worker_threads=4 needs --worker_class process.*--worker_count"):
        load(flags={"worker_threads": 4, "worker_class": "thread"})
    with pytest.raises(SettingsError, match="--worker_threads and --max_batch_size cannot be combined"):
        load(flags={"worker_threads": 4, "max_batch_size": 2})
    assert load(flags={"worker_threads": 1, "worker_class": "thread"}).calls_at_once == 1
    assert load(flags={"worker_threads": 4, "worker_count": 2, "worker_class": "process"}).calls_at_once == 8


# ---- --debug_port


def test_a_debugged_server_has_one_worker_and_no_limits(load: Load) -> None:
    given = {"WORKER_COUNT": "4", "SCORING_TIMEOUT_MS": "500"}
    resolved = load(flags={"debug_port": 0, "max_requests": 5}, environment=given)
    assert (resolved.debug_port, resolved.worker_count, resolved.scoring_timeout_ms) == (0, 1, 0)
    assert (resolved.worker_timeout, resolved.max_requests, resolved.max_worker_rss) == (0, 0, 0)
    assert resolved.notices == (
        "WORKER_COUNT=4 counts as 1, because --debug_port debugs one worker.",
        "SCORING_TIMEOUT_MS has no effect with --debug_port: a debugger may hold the worker.",
        "--max_requests has no effect with --debug_port: a debugger may hold the worker.",
    )
    # Defaults cause no notice.
    assert load(flags={"debug_port": 5678}).notices == ()


def test_waiting_for_a_debugger_needs_its_port(load: Load) -> None:
    assert load(flags={"debug_wait": True}).notices == ("--debug_wait has no effect without --debug_port.",)


def test_a_debugger_either_attaches_or_is_connected_to(load: Load) -> None:
    with pytest.raises(SettingsError, match="AZUREML_DEBUG_PORT connects to a debugger"):
        load(flags={"debug_port": 5678}, environment={"AZUREML_DEBUG_PORT": "5679"})


# ---- --reload


def test_a_debugged_server_does_not_reload(load: Load) -> None:
    resolved = load(flags={"debug_port": 0, "reload": True})
    assert resolved.reload is False
    assert resolved.notices == ("--reload has no effect with --debug_port: a successor would need the same port.",)


def test_folders_are_watched_with_reload_only(load: Load) -> None:
    assert load(flags={"reload": True, "reload_dir": "src"}).notices == ()
    assert load(flags={"reload_dir": "src"}).notices == ("--reload_dir has no effect without --reload.",)
