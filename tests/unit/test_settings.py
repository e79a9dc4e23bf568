"""From what was given to what it means: precedence, the syntax of values, refusals, exported
variables.

Needs no server: the environment is a dictionary and the current folder a temporary one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable

import pytest

import azureml_inference_server_http as package
from azureml_inference_server_http.launch import settings, settings_table
from azureml_inference_server_http.launch.config_file import ConfigFileError
from azureml_inference_server_http.launch.settings import RawSettings, Settings, SettingsError, exported_environment
from azureml_inference_server_http.launch.settings_table import SETTINGS, Setting

KEY = "0AAAAAAA-0000-0000-0000-00000000000f"
Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Resolve options, variables and the text of config.json in the current folder."""
    monkeypatch.setattr(package, "__version__", "9.8.7", raising=False)

    def resolve(
        flags: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        file: Any = None,
    ) -> Settings:
        if file is not None:
            (tmp_path / "config.json").write_text(file if isinstance(file, str) else json.dumps(file))
        return settings.load(RawSettings(flags or {}, environment or {}, str(tmp_path)))

    return resolve


def refusals(load: Load, **given: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(**given)
    return caught.value.lines


# ---- Precedence


def example(setting: Setting, number: int) -> tuple[Any, Any]:
    """A value for this setting, as text and resolved; another one for each number below 4."""
    if setting.kind in (settings_table.INTEGER, settings_table.LENIENT_INTEGER):
        return str(7000 + number), 7000 + number
    if setting.kind == settings_table.NUMBER:
        return f"{number}.25", number + 0.25
    if setting.kind in (settings_table.BOOLEAN, settings_table.EXACT_TRUE, settings_table.ANY_CASE_TRUE):
        value = bool(setting.default) != bool(number % 2)
        return str(value).lower(), value
    if setting.kind == settings_table.LOG_LEVEL:
        name = ("DEBUG", "WARNING", "ERROR", "CRITICAL")[number]
        return name, name
    if setting.kind == settings_table.WORKER_CLASS:
        name = ("process", "thread")[number % 2]
        return name.title(), name
    if setting.kind == settings_table.METRICS:
        name = ("on", "off")[number % 2]
        return name.title(), name
    return f"/value{number}", f"/value{number}"


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


# ---- Syntax


@pytest.mark.parametrize(
    ("text", "number"),
    [(" 400.0 ", 400), ("1_000", 1000), ("+5", 5), ("007", 7), ("-0", 0), ("400.00", 400), ("\t3\n", 3), ("٣", 3)],
)
def test_whole_numbers_in_the_environment(load: Load, text: str, number: int) -> None:
    assert load(environment={"SCORING_TIMEOUT_MS": text}).scoring_timeout_ms == number


@pytest.mark.parametrize("text", ["1e3", "400.5", "400.", ".0", "0x10", "true", "1__0", "_1", "- 1", "1" * 5000, "-1"])
def test_refused_whole_numbers_in_the_environment(load: Load, text: str) -> None:
    (line,) = refusals(load, environment={"SCORING_TIMEOUT_MS": text})
    assert line.startswith("SCORING_TIMEOUT_MS='")
    assert line.endswith("(environment variable SCORING_TIMEOUT_MS)")
    assert len(line) < 300


@pytest.mark.parametrize(("text", "number"), [("5", 5), ("500.0", 500), ("1e3", 1000), ("true", 1), ('" 500.0 "', 500)])
def test_whole_numbers_in_the_file(load: Load, text: str, number: int) -> None:
    value = load(file=f'{{"SCORING_TIMEOUT_MS": {text}}}').scoring_timeout_ms
    assert (value, type(value)) == (number, int)


@pytest.mark.parametrize("text", ["1.5", '"x"', "[]", "{}", "1e30", "NaN", "Infinity", "-1"])
def test_refused_whole_numbers_in_the_file(load: Load, text: str, tmp_path: Path) -> None:
    (line,) = refusals(load, file=f'{{"SCORING_TIMEOUT_MS": {text}}}')
    assert line.startswith("SCORING_TIMEOUT_MS=")
    assert line.endswith(f"(key SCORING_TIMEOUT_MS in {tmp_path}/config.json)")


@pytest.mark.parametrize("text", ["true", "True", "yes", "ON", "1", "t", "Y"])
def test_words_for_true(load: Load, text: str) -> None:
    assert load(environment={"AML_MDC_STORAGE_ENABLED": text}).mdc_storage_enabled is True


@pytest.mark.parametrize("text", ["false", "FALSE", "no", "Off", "0", "f", "n"])
def test_words_for_false(load: Load, text: str) -> None:
    name = "APP_INSIGHTS_LOG_RESPONSE_ENABLED"
    assert load(environment={name: text}).app_insights_log_response_enabled is False


@pytest.mark.parametrize("text", [" true", "2", "1.0", "null", "maybe"])
def test_refused_words(load: Load, text: str) -> None:
    (line,) = refusals(load, environment={"AZMLINFSRV_ERROR_DETAILS": text})
    assert line == (
        f"AZMLINFSRV_ERROR_DETAILS={text!r} is not allowed: it must be true or false (also yes/no, on/off, 1/0) "
        "(environment variable AZMLINFSRV_ERROR_DETAILS)"
    )


@pytest.mark.parametrize(("value", "expected"), [(True, True), (0, False), (1.0, True), ("yes", True)])
def test_true_and_false_in_the_file(load: Load, value: Any, expected: bool) -> None:
    assert load(file={"AZMLINFSRV_ERROR_DETAILS": value}).error_details is expected


@pytest.mark.parametrize("value", [2, "x", [], {}, 0.5])
def test_neither_true_nor_false_in_the_file(load: Load, value: Any) -> None:
    assert len(refusals(load, file={"AZMLINFSRV_ERROR_DETAILS": value})) == 1


@pytest.mark.parametrize("value", [1, True, [], 1.5])
def test_text_in_the_file_must_be_text(load: Load, value: Any) -> None:
    assert refusals(load, file={"SERVICE_NAME": value})[0].startswith(
        f"SERVICE_NAME={json.dumps(value)} is not allowed: it must be text (key SERVICE_NAME in "
    )


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("debug", "DEBUG"),
        ("Info", "INFO"),
        ("WARN", "WARNING"),
        ("fatal", "CRITICAL"),
        (" error ", "ERROR"),
        ("TRACE", "DEBUG"),
        ("verbose", "DEBUG"),
        ("NOTSET", "DEBUG"),
        ("Information", "INFO"),
        ("0", "DEBUG"),
        ("-1", "DEBUG"),
        ("15", "DEBUG"),
        ("16", "INFO"),
        (" 30 ", "WARNING"),
        ("37.5", "ERROR"),
        ("1" * 5000, "CRITICAL"),
    ],
)
def test_log_levels(load: Load, text: str, level: str) -> None:
    assert load(environment={"AZUREML_LOG_LEVEL": text}).log_level == level


@pytest.mark.parametrize(("value", "level"), [(10, "DEBUG"), (29.0, "WARNING"), (10**400, "CRITICAL")])
def test_log_level_as_a_number_in_the_file(load: Load, value: float, level: str) -> None:
    assert load(file={"AZUREML_LOG_LEVEL": value}).log_level == level


@pytest.mark.parametrize("text", ["LOUD", "1e1", "x\ny", "None"])
def test_a_log_level_that_means_nothing_is_one_warning_and_the_default(load: Load, text: str) -> None:
    resolved = load(environment={"AZUREML_LOG_LEVEL": text})
    assert resolved.log_level == "INFO"
    assert resolved.notices == (
        f"AZUREML_LOG_LEVEL={text!r} is ignored, and the default INFO is used: it must be DEBUG, INFO, WARNING, ERROR "
        "or CRITICAL, or a number such as 20 (environment variable AZUREML_LOG_LEVEL).",
    )


def test_a_log_level_of_a_wrong_type_in_the_file_is_a_warning_too(load: Load, tmp_path: Path) -> None:
    resolved = load(file={"AZUREML_LOG_LEVEL": True})
    assert resolved.log_level == "INFO"
    assert resolved.notices[0].startswith("AZUREML_LOG_LEVEL=true is ignored, and the default INFO is used: ")
    assert resolved.notices[0].endswith(f"(key AZUREML_LOG_LEVEL in {tmp_path}/config.json).")


NEVER_BLANK = [setting for setting in SETTINGS if setting.kind in settings_table.BLANK_MEANS_UNSET]


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
@pytest.mark.parametrize("setting", NEVER_BLANK, ids=lambda setting: setting.name)
def test_a_blank_value_counts_as_absent(load: Load, setting: Setting, blank: str) -> None:
    """Compose files write ``WORKER_COUNT=`` for a value that they do not have."""
    default = load()
    environment = {} if setting.environment is None else {setting.environment: blank}
    file = {} if setting.config_key is None else {setting.config_key: blank}
    resolved = load(environment=environment, file=file)
    assert getattr(resolved, setting.name) == getattr(default, setting.name)
    assert resolved.origins[setting.name].kind == "default"
    assert resolved.notices == ()
    if setting.config_key:
        text, value = example(setting, 1)
        assert getattr(load(environment=environment, file={setting.config_key: text}), setting.name) == value


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting.environment], ids=lambda s: s.name)
@pytest.mark.parametrize("blank", ["", " "])
def test_no_blank_variable_keeps_the_server_from_starting(load: Load, setting: Setting, blank: str) -> None:
    load(environment={setting.environment or "": blank})


def test_free_text_may_be_blank(load: Load) -> None:
    assert load(environment={"SERVICE_NAME": ""}, file={"SERVICE_NAME": "x"}).service_name == ""


def test_values_that_the_published_server_took_are_taken(load: Load) -> None:
    resolved = load(environment={"WORKER_COUNT": "٢", "WORKER_TIMEOUT": "99999999999", "AZUREML_DEBUG_PORT": "0"})
    assert (resolved.worker_count, resolved.worker_timeout, resolved.debugger_port) == (2, 99999999999, 0)


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("WORKER_COUNT", "0", "a whole number, 1 or more"),
        ("WORKER_COUNT", "abc", "a whole number, 1 or more"),
        ("WORKER_TIMEOUT", "-1", "a whole number of seconds, 0 or more (0 means no limit)"),
        ("WORKER_TIMEOUT", "abc", "a whole number of seconds, 0 or more (0 means no limit)"),
        ("AZUREML_DEBUG_PORT", "65536", "a whole number from 0 to 65535 (0 means no debugger)"),
        ("AZMLINFSRV_MAX_QUEUE", "0", "a whole number, 1 or more"),
        ("AZMLINFSRV_MAX_REQUEST_SIZE", "0", "a whole number of bytes, 1 or more"),
        ("AZMLINFSRV_GRACEFUL_TIMEOUT", "-1", "a whole number of seconds, 0 or more"),
        ("AZMLINFSRV_WORKER_CLASS", "fiber", "process or thread"),
    ],
)
def test_refusal_says_what_is_allowed(load: Load, name: str, text: str, allowed: str) -> None:
    (line,) = refusals(load, environment={name: text})
    assert line.startswith(f"{name}={text!r} is not allowed: it must be {allowed}")
    assert line.endswith(f"(environment variable {name})")


def test_no_limit_can_be_asked_for(load: Load) -> None:
    resolved = load(environment={"WORKER_TIMEOUT": "0", "SCORING_TIMEOUT_MS": "0", "AZMLINFSRV_GRACEFUL_TIMEOUT": "0"})
    assert (resolved.worker_timeout, resolved.scoring_timeout_ms, resolved.graceful_timeout) == (0, 0, 0)


def test_refusal_names_the_variable_as_it_was_written(load: Load) -> None:
    assert refusals(load, environment={"Scoring_Timeout_Ms": "x"})[0].endswith(
        "(environment variable Scoring_Timeout_Ms)"
    )


def test_all_refusals_are_told_at_once_on_one_line_each(load: Load) -> None:
    lines = refusals(
        load,
        flags={"health_port": 5001},
        environment={"WORKER_COUNT": "x\ny", "WORKER_TIMEOUT": "z", "SEPERATE_HEALTH_ENDPOINT": "true"},
        file={"SERVICE_NAME": 5},
    )
    assert [line.partition("=")[0] for line in lines[:3]] == ["WORKER_COUNT", "WORKER_TIMEOUT", "SERVICE_NAME"]
    assert lines[3].startswith("--port and --health_port are both 5001")
    assert len(lines) == 4
    assert not any("\n" in line for line in lines)


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


# ---- Exported variables


def test_exported_without_options(load: Load, tmp_path: Path) -> None:
    resolved = load(
        environment={"AZUREML_MODEL_DIR": "m", "AML_CORS_ORIGINS": "*"}, file={"AZUREML_ENTRY_SCRIPT": "from_file.py"}
    )
    assert resolved.entry_script == "from_file.py"
    assert exported_environment(resolved) == {
        "AML_APP_ROOT": str(tmp_path),
        "TRANSPORT_PROTOCOL": "grpc",
        "WORKER_COUNT": "1",
        "HTTP_X_MS_SERVER_VERSION": "azmlinfsrv/9.8.7",
        "SERVER_PORT": "5001",
        "HEALTH_PORT": "5001",
        "AML_APP_INSIGHTS_ENABLED": "false",
        "SERVER_SOFTWARE": "azmlinfsrv/9.8.7",
    }


def test_exported_with_all_options(load: Load, tmp_path: Path) -> None:
    flags = {
        "entry_script": "s.py",
        "model_dir": "m/",
        "config_file": "c.json",
        "app_insights_key": KEY,
        "cors_origins": "a.com, b.com",
        "port": 6001,
        "health_port": 6000,
        "worker_count": 3,
        "rest": True,
    }
    exported = exported_environment(load(flags=flags, environment={"SEPERATE_HEALTH_ENDPOINT": "true"}))
    real = os.path.realpath(tmp_path)
    assert exported == {
        "AML_APP_ROOT": str(tmp_path),
        "AZUREML_ENTRY_SCRIPT": f"{real}/s.py",
        "AZUREML_MODEL_DIR": "m/",
        "AZUREML_CONFIG_FILE": f"{real}/c.json",
        "AML_APP_INSIGHTS_KEY": KEY,
        "AML_APP_INSIGHTS_ENABLED": "true",
        "AML_CORS_ORIGINS": "a.com, b.com",
        "TRANSPORT_PROTOCOL": "rest",
        "WORKER_COUNT": "3",
        "HTTP_X_MS_SERVER_VERSION": "azmlinfsrv/9.8.7",
        "SERVER_PORT": "6001",
        "HEALTH_PORT": "6000",
        "SERVER_SOFTWARE": "azmlinfsrv/9.8.7",
    }


# ---- The configuration file


def write(path: Path, timeout: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"SCORING_TIMEOUT_MS": timeout}))
    return path


def test_search_order(load: Load, tmp_path: Path) -> None:
    named = write(tmp_path / "named.json", 1)
    variable = write(tmp_path / "variable.json", 2)
    root = write(tmp_path / "root" / "config.json", 3)
    beside = write(tmp_path / "scripts" / "config.json", 4)
    write(tmp_path / "config.json", 5)
    flags = {"config_file": "named.json", "entry_script": "scripts/score.py"}
    environment = {"AZUREML_CONFIG_FILE": "variable.json", "AML_APP_ROOT": "root"}

    for timeout, file in enumerate((named, variable, root, beside), start=1):
        resolved = load(flags=flags, environment=environment)
        assert (resolved.scoring_timeout_ms, resolved.config_file_read) == (timeout, str(file))
        file.write_text("")
        if file is named:
            flags.pop("config_file")
    resolved = load(flags=flags, environment=environment)
    assert (resolved.scoring_timeout_ms, resolved.config_file_read) == (3600000, None)


def test_beside_a_script_named_by_the_variable(load: Load, tmp_path: Path) -> None:
    write(tmp_path / "root" / "scripts" / "config.json", 6)
    environment = {"AML_APP_ROOT": "root", "azureml_entry_script": "scripts/score.py"}
    assert load(environment=environment).scoring_timeout_ms == 6


def test_missing_and_empty_named_files_are_skipped_with_a_notice(load: Load, tmp_path: Path) -> None:
    root = write(tmp_path / "config.json", 7)
    resolved = load(flags={"config_file": "gone.json"})
    assert resolved.config_file_read == str(root)
    assert resolved.notices == (
        f"The configuration file {tmp_path}/gone.json does not exist: nothing is read from it.",
    )
    (tmp_path / "empty.json").touch()
    assert load(environment={"AZUREML_CONFIG_FILE": "empty.json"}).notices == (
        f"The configuration file {tmp_path}/empty.json is empty: nothing is read from it.",
    )
    assert load(environment={"AZUREML_CONFIG_FILE": ""}).notices == ()


def test_keys_without_effect_are_named_once(load: Load, tmp_path: Path) -> None:
    resolved = load(file={"foo": 1, "WORKER_COUNT": 3, "scoring_timeout_ms": 7, "SERVICE_NAME": "ok"})
    assert (resolved.worker_count, resolved.scoring_timeout_ms, resolved.service_name) == (1, 3600000, "ok")
    assert resolved.notices == (
        f"Keys in {tmp_path}/config.json that have no effect: 'foo', 'WORKER_COUNT' (an environment variable, not read "
        "from a file), 'scoring_timeout_ms' (write it SCORING_TIMEOUT_MS)",
    )


def test_a_file_full_of_foreign_keys_does_not_fill_the_log(load: Load) -> None:
    (notice,) = load(file={f"key{number}": 1 for number in range(1000)}).notices
    assert notice.endswith("'key19', ...")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"{", "is not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        (b" ", "is not JSON (Expecting value: line 1 column 2 (char 1))"),
        (b"\xef\xbb\xbf{}", "starts with a byte order mark"),
        (b'{"a": "\xff"}', "is not UTF-8 text (byte 8)"),
        (b"[1]", "does not hold an object"),
        (b'"x"', "does not hold an object"),
        (b"[" * 200000, "is not JSON that can be read"),
    ],
)
def test_unusable_files_are_explained(load: Load, tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigFileError) as caught:
        load()
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/config.json {fault}")
    assert "\n" not in text
    assert text.endswith("Correct it, remove it, or name another file with --config_file.")


def test_a_folder_is_not_a_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ConfigFileError, match=r"cannot be read \(Is a directory\)"):
        load()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("AZMLINFSRV_MAX_QEUE", " Did you mean AZMLINFSRV_MAX_QUEUE?"),
        ("azmlinfsrv_max_queue", " Did you mean AZMLINFSRV_MAX_QUEUE?"),
        ("AZMLINFSRV_WORKER_COUNT", " Did you mean WORKER_COUNT?"),
        ("AZMLINFSRV_MODEL_DIR", " Did you mean AZUREML_MODEL_DIR?"),
        ("AZMLINFSRV_PORT", " Did you mean --port?"),
        ("AZMLINFSRV_1234567890", ""),
    ],
)
def test_variables_of_ours_that_nothing_reads_are_named(load: Load, name: str, hint: str) -> None:
    assert load(environment={name: "1", "AZMLINFSRV_MAX_QUEUE": "5", "OTHER": "1"}).notices == (
        f"The environment variable {name} has no effect: there is no such setting.{hint}",
    )


# ---- Worker threads


@pytest.mark.parametrize(
    ("environment", "setting", "left", "reason"),
    [
        ("WORKER_PRELOAD", "worker_preload", False, "threads always share one copy of the script"),
        ("AZMLINFSRV_MAX_REQUESTS", "max_requests", 0, "a new thread would have the memory of the old one"),
        ("AZMLINFSRV_MAX_WORKER_RSS", "max_worker_rss", 0, "a new thread would have the memory of the old one"),
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
