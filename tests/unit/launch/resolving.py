"""Refusals of settings, and values for them, for the tests of several files."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from azureml_inference_server_http.launch import settings_table
from azureml_inference_server_http.launch.settings import Settings, SettingsError
from azureml_inference_server_http.launch.settings_table import Setting

Load = Callable[..., Settings]


def refusals(load: Load, **given: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(**given)
    return caught.value.lines


def example(setting: Setting, number: int) -> tuple[Any, Any]:
    """A value for this setting, as text and resolved; another one for each number below 4."""
    if setting.kind in (settings_table.INTEGER, settings_table.LENIENT_INTEGER):
        base = 7000 if setting.maximum is None else min(7000, setting.maximum - 10)
        return str(base + number), base + number
    if setting.kind == settings_table.NUMBER:
        return f"{number}.25", number + 0.25
    switches = (settings_table.BOOLEAN, settings_table.ON_OFF, settings_table.EXACT_TRUE, settings_table.ANY_CASE_TRUE)
    if setting.kind in switches:
        value = bool(setting.default) != bool(number % 2)
        return str(value).lower(), value
    if setting.kind == settings_table.LOG_LEVEL:
        name = ("DEBUG", "WARNING", "ERROR", "CRITICAL")[number]
        return name, name
    if setting.kind == settings_table.CHOICE:
        name = setting.choices[number % 2]
        return name.title(), name
    if setting.kind == settings_table.VARIABLES:
        return f"NAME={number}", f"NAME={number}"
    if setting.kind == settings_table.NETWORKS:
        return f"10.{number}.0.1/16, ::{number}", f"10.{number}.0.0/16,::{number}/128"
    if setting.kind == settings_table.PROTOCOLS:
        return ("V2, score", "score,v2") if number % 2 else ("score", "score")
    if setting.kind == settings_table.MODEL_NAME:
        return f" flowers {number} ", f"flowers {number}"
    return f"/value{number}", f"/value{number}"
