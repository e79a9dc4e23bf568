"""The variables that are exported for the script (contract section 3)."""

from __future__ import annotations

import os
from pathlib import Path

from resolving import Load

from azureml_inference_server_http.launch.settings import exported_environment

KEY = "0AAAAAAA-0000-0000-0000-00000000000f"


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
