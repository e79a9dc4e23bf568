"""The banner: the text at the start with the settings and the addresses of the server.

Owns its wording and layout (contract section 2, items 2 and 3), because people and documentation
search for it. It shows the values that were given: environment variables, as the script will read
them, or keys of the configuration file. A default is shown as ``None``, except in rows that the
settings table marks. Runs in the launcher, once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

import azureml_inference_server_http as package

from . import display
from .settings import FILE, Settings
from .settings_table import SETTINGS, Setting

_RULE = "-" * 15


def show(settings: Settings, environment: Mapping[str, str]) -> None:
    """Write remarks and banner to standard output, and flush it, because in a pipe they would
    otherwise appear after the workers' lines. In a JSON log they are one record."""
    encoding = sys.stdout.encoding or "utf-8"
    shown = [*remarks(settings, environment), *lines(settings, environment)]
    if settings.display.json_log is not None:
        logging.getLogger("azmlinfsrv.banner").info("%s", "\n".join(shown).strip())
        return
    if settings.display.is_short:
        shown = display.start(settings, settings.display.colour)
    text = "\n".join(shown) + "\n"
    # Encoded with "backslashreplace", because variables may contain bytes that are no text.
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


def remarks(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """Lines before the banner: whether the model folder is set, and whether the Application
    Insights key is valid."""
    found = []
    if "AZUREML_MODEL_DIR" not in environment:
        found.append("The environment variable 'AZUREML_MODEL_DIR' has not been set.")
        found.append("Use the --model_dir command line argument to set it.")
    if settings.app_insights_enabled:
        found.append("Valid Application Insights instrumentation key provided.")
    elif settings.app_insights_requested:
        found.append("Invalid Application Insights instrumentation key provided.")
        found.append("Application Insights has been disabled.")
    return found


def lines(settings: Settings, environment: Mapping[str, str]) -> list[str]:
    """The lines of the banner. ``environment`` is the script's environment, with the exported
    variables."""
    host = display.local_host(settings.host)
    return [
        "",
        f"Azure ML Inferencing HTTP server v{package.__version__}",
        "",
        "",
        "Server Settings",
        _RULE,
        *(f"{row.banner}: {_value(row, settings, environment)}" for row in SETTINGS if row.banner is not None),
        "",
        "",
        "Server Routes",
        _RULE,
        f"Liveness Probe: GET   {host}:{settings.health_port}/",
        f"Score:          POST  {host}:{settings.port}/score",
        *([f"Inference:      POST  {host}:{settings.port}{settings.infer_path}"] if settings.serves_v2 else []),
        "",
    ]


def _value(row: Setting, settings: Settings, environment: Mapping[str, str]) -> str:
    value: object = environment.get(row.exports or row.environment or "")
    if row.banner_in_force or (value is None and settings.origins[row.name].kind == FILE):
        value = getattr(settings, row.name)
    if row.banner_in_force and value == 0:
        return "0 (no limit)"
    if row.name == "worker_count" and settings.cores is not None:
        return f"{settings.worker_count} (auto: {settings.cores.source})"
    return "None" if value is None else row.banner_value.format(value)
