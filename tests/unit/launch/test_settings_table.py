"""The settings table itself: complete, without contradictions, defaults as published, documented.

Needs no server and no native module. Expected values are written out here, not taken from the
table.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from azureml_inference_server_http.launch import setting_values, settings, settings_table
from azureml_inference_server_http.launch.settings_table import GROUPS, SETTINGS

ROOT = Path(__file__).resolve().parents[3]
BY_NAME = {setting.name: setting for setting in SETTINGS}

# Contract sections 1 and 3, then the settings that only this server has.
DEFAULTS = {
    "entry_script": None,
    "model_dir": "",
    "config_file": None,
    "worker_count": 1,
    "worker_timeout": 300,
    "port": 5001,
    "health_port": 5000,
    "app_insights_enabled": False,
    "app_insights_key": None,
    "server_version": "",
    "cors_origins": None,
    "separate_health": False,
    "app_root": None,
    "source_directory": None,
    "rest": False,
    "worker_preload": False,
    "scoring_timeout_ms": 3600000,
    "plain": False,
    "log_level": "INFO",
    "log_format": "text",
    "access_log": "all",
    "trusted_proxies": None,
    "protocols": "score",
    "model_name": None,
    "debug_port": None,
    "debug_wait": False,
    "reload": False,
    "reload_dir": None,
    "debugger_port": None,
    "server_version_log_response_enabled": True,
    "app_insights_connection_string": None,
    "app_insights_endpoint": "https://dc.services.visualstudio.com",
    "telemetry_storage": None,
    "otel_sdk_disabled": False,
    "otel_bsp_schedule_delay": 5000,
    "requests_ca_bundle": None,
    "app_insights_log_response_enabled": True,
    "mdc_storage_enabled": False,
    "service_name": "ML service",
    "service_version": "1.0",
    "service_path_prefix": "",
    "workspace_name": "",
    "hostname": "Unknown",
    "host": "0.0.0.0",
    "max_queue": 2048,
    "max_request_size": 100 * 1024 * 1024,
    "graceful_timeout": 30,
    "queue_timeout": 0,
    "max_buffered": 1024**3,
    "client_timeout": 60,
    "min_body_rate": 240,
    "keep_alive": 75,
    "worker_class": "process",
    "docs": True,
    "record": None,
    "record_count": 100,
    "record_body_size": 1024 * 1024,
    "metrics": "health",
    "max_concurrency": 100,
    "max_batch_size": 1,
    "batch_wait_ms": 0,
    "worker_threads": 1,
    "worker_env": None,
    "init_concurrency": 0,
    "warmup_samples": None,
    "thread_pools": "shared",
    "max_requests": 0,
    "max_worker_rss": 0,
    "error_details": False,
    "client_errors": False,
}

KEYS_OF_THE_FILE = {
    "AZUREML_ENTRY_SCRIPT",
    "AZUREML_SOURCE_DIRECTORY",
    "SERVICE_NAME",
    "SERVICE_VERSION",
    "SERVICE_PATH_PREFIX",
    "WORKSPACE_NAME",
    "HOSTNAME",
    "SCORING_TIMEOUT_MS",
    "AZUREML_LOG_LEVEL",
    "APP_INSIGHTS_LOG_RESPONSE_ENABLED",
    "AZUREML_MODEL_DIR",
    "AZUREML_DEBUG_PORT",
    "AZMLINFSRV_DEBUG_PORT",
    "AZMLINFSRV_DEBUG_WAIT",
    "AZMLINFSRV_RELOAD",
    "AZMLINFSRV_RELOAD_DIR",
    "AZMLINFSRV_HOST",
    "AZMLINFSRV_CLIENT_ERRORS",
    "AZMLINFSRV_PLAIN",
    "AZMLINFSRV_LOG_FORMAT",
    "AZMLINFSRV_ACCESS_LOG",
    "AZMLINFSRV_TRUSTED_PROXIES",
    "AZMLINFSRV_PROTOCOLS",
    "AZMLINFSRV_MODEL_NAME",
    "AZMLINFSRV_MAX_QUEUE",
    "AZMLINFSRV_MAX_REQUEST_SIZE",
    "AZMLINFSRV_GRACEFUL_TIMEOUT",
    "AZMLINFSRV_QUEUE_TIMEOUT",
    "AZMLINFSRV_MAX_BUFFERED",
    "AZMLINFSRV_CLIENT_TIMEOUT",
    "AZMLINFSRV_MIN_BODY_RATE",
    "AZMLINFSRV_KEEP_ALIVE",
    "AZMLINFSRV_DOCS",
    "AZMLINFSRV_RECORD",
    "AZMLINFSRV_RECORD_COUNT",
    "AZMLINFSRV_RECORD_BODY_SIZE",
    "AZMLINFSRV_METRICS",
    "AZMLINFSRV_WORKER_CLASS",
    "AZMLINFSRV_MAX_CONCURRENCY",
    "AZMLINFSRV_MAX_BATCH_SIZE",
    "AZMLINFSRV_BATCH_WAIT_MS",
    "AZMLINFSRV_WORKER_THREADS",
    "AZMLINFSRV_WORKER_ENV",
    "AZMLINFSRV_INIT_CONCURRENCY",
    "AZMLINFSRV_WARMUP_SAMPLES",
    "AZMLINFSRV_THREAD_POOLS",
    "AZMLINFSRV_MAX_REQUESTS",
    "AZMLINFSRV_MAX_WORKER_RSS",
    "AZMLINFSRV_ERROR_DETAILS",
    "AZMLINFSRV_TELEMETRY_STORAGE",
}


def test_defaults_are_the_published_ones() -> None:
    assert {setting.name: setting.default for setting in SETTINGS} == DEFAULTS


def test_the_file_may_hold_exactly_the_keys_of_the_contract() -> None:
    assert {setting.config_key for setting in SETTINGS if setting.config_key} == KEYS_OF_THE_FILE


def test_original_options() -> None:
    assert {setting.flag for setting in SETTINGS if setting.flag and setting.original} == {
        "--entry_script",
        "--model_dir",
        "--appinsights_instrumentation_key",
        "--port",
        "--health_port",
        "--worker_count",
        "--access_control_allow_origins",
        "--config_file",
        "--rest",
    }


@pytest.mark.parametrize("column", ["name", "flag", "environment", "config_key", "exports", "banner"])
def test_no_name_is_used_twice(column: str) -> None:
    used = [getattr(setting, column).lower() for setting in SETTINGS if getattr(setting, column)]
    assert sorted(used) == sorted(set(used))


def test_every_row_has_an_attribute_and_every_attribute_is_a_row_or_known() -> None:
    derived = {"app_insights_requested", "otlp", "cores", "origins", "notices", "config_file_read", "display"}
    assert set(settings.Settings._fields) == {setting.name for setting in SETTINGS} | derived


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
class TestRow:
    def test_can_be_given(self, setting: settings_table.Setting) -> None:
        assert setting.flag or setting.environment

    def test_belongs_to_a_group_and_has_a_parser(self, setting: settings_table.Setting) -> None:
        assert setting.group in GROUPS
        assert setting.kind in setting_values.PARSERS

    def test_help_is_a_sentence(self, setting: settings_table.Setting) -> None:
        assert setting.help[0].isupper()
        assert setting.help.endswith(".")

    def test_default_passes_its_own_parser(self, setting: settings_table.Setting) -> None:
        if setting.default is not None and setting.kind not in (
            settings_table.EXACT_TRUE,
            settings_table.ANY_CASE_TRUE,
        ):
            assert setting_values.PARSERS[setting.kind](setting, setting.default) == setting.default

    def test_none_and_empty_defaults_are_put_in_words(self, setting: settings_table.Setting) -> None:
        assert settings_table.default_text(setting) not in ("", "None")

    def test_numbers_are_bounded_so_that_they_fit_where_they_go(self, setting: settings_table.Setting) -> None:
        if setting.kind in (settings_table.INTEGER, settings_table.NUMBER):
            assert setting.minimum is not None
            assert setting.maximum is not None
            assert setting.maximum < 2**63
            assert str(setting.minimum) in settings_table.allowed_text(setting)
            assert str(setting.maximum) in settings_table.allowed_text(setting)

    def test_values_have_a_placeholder_in_the_help(self, setting: settings_table.Setting) -> None:
        if setting.flag and setting.kind != settings_table.BOOLEAN:
            assert setting.metavar

    def test_words_that_only_text_can_be_are_not_read_from_the_file(self, setting: settings_table.Setting) -> None:
        if setting.kind in (settings_table.EXACT_TRUE, settings_table.ANY_CASE_TRUE):
            assert setting.config_key is None

    def test_key_is_the_variable(self, setting: settings_table.Setting) -> None:
        assert setting.config_key in (None, setting.environment)

    def test_new_settings_follow_one_pattern(self, setting: settings_table.Setting) -> None:
        # This one has the names that Azure's tools know.
        if not setting.original and setting.name != "app_insights_connection_string":
            assert setting.flag == f"--{setting.name}"
            assert setting.environment == setting.config_key == f"AZMLINFSRV_{setting.name.upper()}"

    def test_exported_means_there_is_a_variable(self, setting: settings_table.Setting) -> None:
        assert (setting.exported == settings_table.NEVER) == (setting.exports is None)

    def test_documented(self, setting: settings_table.Setting) -> None:
        documented = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
        for name in (setting.flag, setting.environment, setting.config_key, setting.help, setting.note):
            assert name is None or name in documented


def test_the_exceptions_of_the_contract_are_marked() -> None:
    assert BY_NAME["port"].environment is None
    assert BY_NAME["health_port"].environment is None
    assert BY_NAME["separate_health"].kind == settings_table.EXACT_TRUE
    assert BY_NAME["app_insights_enabled"].kind == settings_table.EXACT_TRUE
    assert not BY_NAME["worker_count"].any_case
    assert BY_NAME["scoring_timeout_ms"].any_case
    assert BY_NAME["rest"].hidden


def generate_docs(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "tools" / "generate_docs.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_documentation_is_up_to_date() -> None:
    result = generate_docs(ROOT, "--check")
    assert (result.returncode, result.stderr) == (0, "")


def test_check_notices_an_old_page_and_writing_mends_it(tmp_path: Path) -> None:
    for name in (
        "tools/generate_docs.py",
        "azureml_inference_server_http/__init__.py",
        "azureml_inference_server_http/launch/settings_table.py",
        "azureml_inference_server_http/validation/findings.py",
        "docs/findings.md",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    page = tmp_path / "docs" / "settings.md"
    page.write_text("old")

    result = generate_docs(tmp_path, "--check")
    assert result.returncode == 1
    assert result.stderr == "docs/settings.md is out of date: run python tools/generate_docs.py\n"
    assert page.read_text() == "old"

    assert generate_docs(tmp_path).returncode == 0
    assert page.read_text(encoding="utf-8") == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
