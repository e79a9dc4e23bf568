"""The syntax of values in the environment and in the file, and their refusals (contract section 3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from resolving import Load, example, refusals

from azureml_inference_server_http.launch import settings_table
from azureml_inference_server_http.launch.settings_table import SETTINGS, Setting

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


NEVER_BLANK = [setting for setting in SETTINGS if settings_table.blank_means_unset(setting)]


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
        ("WORKER_COUNT", "0", "auto, or a whole number, 1 or more"),
        ("WORKER_COUNT", "abc", "auto, or a whole number, 1 or more"),
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


@pytest.mark.parametrize("text", ["v2", "grpc,score", "score;v2"])
def test_protocols_are_known_and_score_is_one_of_them(load: Load, text: str) -> None:
    (line,) = refusals(load, environment={"AZMLINFSRV_PROTOCOLS": text})
    assert "it must be score, or score,v2" in line


def test_the_model_has_the_name_of_the_script_unless_it_has_its_own(load: Load) -> None:
    protocols = {"AZMLINFSRV_PROTOCOLS": "score,v2"}
    assert load(environment=protocols).model_name == "main"
    named = load(environment={**protocols, "AZUREML_ENTRY_SCRIPT": "folder/my.score.py"})
    assert (named.model_name, named.serves_v2, named.infer_path) == ("my.score", True, "/v2/models/my.score/infer")
    (line,) = refusals(load, environment={**protocols, "AZMLINFSRV_MODEL_NAME": "a/b"})
    assert "it must be text without a slash" in line
    alone = load(environment={"AZMLINFSRV_MODEL_NAME": "a"})
    assert "AZMLINFSRV_MODEL_NAME has no effect without --protocols score,v2." in alone.notices


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.1.2.3/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),
        ("10.1.2.3/8", "10.0.0.0/8"),
    ],
)
def test_a_network_of_mapped_addresses_is_one_of_ipv4(load: Load, text: str, network: str) -> None:
    assert load(environment={"AZMLINFSRV_TRUSTED_PROXIES": text}).trusted_proxies == network


@pytest.mark.parametrize("text", ["fe80::1%eth0", "10.0.0.0/8, fe80::%2/64", "10.0.0.0/33", "*"])
def test_what_is_no_network_is_refused(load: Load, text: str) -> None:
    (line,) = refusals(load, environment={"AZMLINFSRV_TRUSTED_PROXIES": text})
    assert "AZMLINFSRV_TRUSTED_PROXIES" in line
