"""The text at the start, word for word."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

import azureml_inference_server_http as package
from azureml_inference_server_http.launch import banner
from azureml_inference_server_http.launch.settings import RawSettings, Settings, exported_environment, load

KEY = "0aaaaaaa-0000-0000-0000-000000000000"


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "__version__", "9.8.7", raising=False)


def resolve(environment: dict[str, str], **flags: Any) -> tuple[Settings, dict[str, str]]:
    """Settings, and the environment that the script gets."""
    settings = load(RawSettings(flags, environment, "/nonexistent"))
    return settings, {**environment, **exported_environment(settings)}


def test_without_anything() -> None:
    assert "\n".join(banner.lines(*resolve({}))) == (
        """
Azure ML Inferencing HTTP server v9.8.7


Server Settings
---------------
Entry Script Name: None
Model Directory: None
Config File: None
Worker Count: 1
Worker Timeout (seconds): 300
Server Port: 5001
Health Port: 5001
Application Insights Enabled: false
Application Insights Key: None
Inferencing HTTP server version: azmlinfsrv/9.8.7
CORS for the specified origins: None
Create dedicated endpoint for health: None


Server Routes
---------------
Liveness Probe: GET   127.0.0.1:5001/
Score:          POST  127.0.0.1:5001/score
"""
    )


def test_with_everything() -> None:
    environment = {
        "WORKER_TIMEOUT": " 70",
        "SEPERATE_HEALTH_ENDPOINT": "true",
        "AML_CORS_ORIGINS": "http://a.com, b",
        "HTTP_X_MS_SERVER_VERSION": "mine",
        "SERVER_VERSION_LOG_RESPONSE_ENABLED": "false",
    }
    resolved = resolve(
        environment,
        entry_script="s.py",
        model_dir="m",
        config_file="c.json",
        worker_count=3,
        port=6001,
        app_insights_key=KEY,
    )
    assert "\n".join(banner.lines(*resolved)) == (
        """
Azure ML Inferencing HTTP server v9.8.7


Server Settings
---------------
Entry Script Name: /nonexistent/s.py
Model Directory: m
Config File: /nonexistent/c.json
Worker Count: 3
Worker Timeout (seconds): 70
Server Port: 6001
Health Port: 5000
Application Insights Enabled: true
Application Insights Key: AppInsights key provided
Inferencing HTTP server version: mine
CORS for the specified origins: Enabling CORS for http://a.com, b
Create dedicated endpoint for health: true


Server Routes
---------------
Liveness Probe: GET   127.0.0.1:5000/
Score:          POST  127.0.0.1:6001/score
"""
    )


def test_values_of_the_configuration_file_are_shown(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"AZUREML_ENTRY_SCRIPT": "s.py", "AZUREML_MODEL_DIR": "m"}')
    settings = load(RawSettings({}, {}, str(tmp_path)))
    shown = banner.lines(settings, exported_environment(settings))
    assert "Entry Script Name: s.py" in shown
    assert "Model Directory: m" in shown


def test_no_limit_is_shown_as_such() -> None:
    assert "Worker Timeout (seconds): 0 (no limit)" in banner.lines(*resolve({"WORKER_TIMEOUT": "0"}))


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("10.0.0.5", "10.0.0.5"), ("::1", "[::1]")]
)
def test_routes_name_an_address_that_answers(host: str, shown: str) -> None:
    assert f"Score:          POST  {shown}:5001/score" in banner.lines(*resolve({}, host=host))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"AZUREML_MODEL_DIR": ""}, []),
        (
            {},
            [
                "The environment variable 'AZUREML_MODEL_DIR' has not been set.",
                "Use the --model_dir command line argument to set it.",
            ],
        ),
        (
            {"AZUREML_MODEL_DIR": "m", "AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": KEY},
            ["Valid Application Insights instrumentation key provided."],
        ),
        (
            {"AZUREML_MODEL_DIR": "m", "AML_APP_INSIGHTS_ENABLED": "true", "AML_APP_INSIGHTS_KEY": "junk"},
            [
                "Invalid Application Insights instrumentation key provided.",
                "Application Insights has been disabled.",
            ],
        ),
        ({"AZUREML_MODEL_DIR": "m", "AML_APP_INSIGHTS_KEY": "junk"}, []),
    ],
)
def test_remarks(environment: dict[str, str], expected: list[str]) -> None:
    assert banner.remarks(*resolve(environment)) == expected


def test_shown_at_once_remarks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8"))
    banner.show(*resolve({}))
    text = raw.getvalue().decode()
    assert text.startswith("The environment variable 'AZUREML_MODEL_DIR' has not been set.\nUse the --model_dir")
    assert text.endswith("127.0.0.1:5001/score\n\n")
    assert text.count("Azure ML Inferencing HTTP server v9.8.7") == 1


def test_bytes_that_are_no_text_do_not_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    banner.show(*resolve({"AZUREML_MODEL_DIR": "m\udcff"}))
    assert rb"Model Directory: m\udcff" in raw.getvalue()
