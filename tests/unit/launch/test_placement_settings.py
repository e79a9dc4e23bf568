"""``WORKER_COUNT=auto``, ``--worker_env`` and ``--init_concurrency`` among the settings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Callable

import pytest
from resolving import Load

from azureml_inference_server_http.launch import banner, display, options, settings
from azureml_inference_server_http.launch.cores import Cores
from azureml_inference_server_http.launch.settings import SettingsError
from azureml_inference_server_http.launch.settings_table import SETTINGS


def with_cores(number: int) -> Callable[[], Cores]:
    return lambda: Cores(number, "a test")


@pytest.mark.parametrize("given", ["auto", " AUTO "])
def test_as_many_workers_as_cores(tmp_path: Path, given: str) -> None:
    raw = settings.RawSettings({}, {"WORKER_COUNT": given}, str(tmp_path), with_cores(3))
    resolved = settings.load(raw)
    assert (resolved.worker_count, resolved.cores) == (3, Cores(3, "a test"))
    assert settings.exported_environment(resolved)["WORKER_COUNT"] == "3"
    assert "Worker Count: 3 (auto: a test)" in banner.lines(resolved, {"WORKER_COUNT": "3"})


def test_cores_are_not_looked_for_without_need(tmp_path: Path) -> None:
    def fail() -> Cores:
        raise AssertionError

    assert settings.load(settings.RawSettings({"worker_count": 2}, {}, str(tmp_path), fail)).cores is None


@pytest.mark.parametrize(
    ("flags", "environment", "said"),
    [
        ({"worker_class": "thread"}, {}, "--worker_env needs --worker_class process"),
        ({}, {"WORKER_PRELOAD": "true"}, "--worker_env cannot be combined with WORKER_PRELOAD"),
        ({"worker_env": "A=1;A=2"}, {}, "^--worker_env is not allowed: A is given twice"),
    ],
)
def test_variables_that_workers_cannot_have(
    load: Load, flags: dict[str, str], environment: dict[str, str], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        load(flags={"worker_env": "A={worker}", **flags}, environment=environment)


def test_a_refusal_says_what_is_wrong(load: Load) -> None:
    with pytest.raises(SettingsError) as refused:
        load(environment={"AZMLINFSRV_WORKER_ENV": "A={worker"})
    assert "AZMLINFSRV_WORKER_ENV=*** is not allowed, because the value of A has a brace" in str(refused.value)


def test_a_refusal_does_not_show_the_values_of_variables(load: Load) -> None:
    for given in ({"worker_env": "A=hush;A=hush"}, {}):
        with pytest.raises(SettingsError) as refused:
            load(flags=given, environment={"AZMLINFSRV_WORKER_ENV": "A=hush;A=hush"})
        assert "is not allowed" in str(refused.value)
        assert "hush" not in str(refused.value)


def test_settings_in_force_do_not_show_the_values_of_variables(load: Load) -> None:
    given = load(flags={"worker_env": "A=hush"})
    shown = [repr(given), *display.start(given, colour=False)]
    assert any("--worker_env=***" in line for line in shown)
    assert "hush" not in str(shown)


def test_the_option_does_not_show_its_value_when_refused() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    options.add_option(parser.add_argument_group(), next(row for row in SETTINGS if row.name == "worker_env"))
    said = r"invalid value: \*\*\*, because entry 2 is not NAME=VALUE; .* \(it must be NAME=VALUE, or several"
    with pytest.raises(argparse.ArgumentError, match=said):
        parser.parse_args(["--worker_env", "TOKEN=first;second"])


def test_init_concurrency_means_nothing_if_the_script_is_loaded_once(load: Load) -> None:
    preloaded = load(flags={"init_concurrency": 2}, environment={"WORKER_PRELOAD": "true"})
    assert preloaded.notices == ("--init_concurrency has no effect with WORKER_PRELOAD: the script is loaded once.",)
    threads = load(flags={"init_concurrency": 2, "worker_class": "thread"})
    assert "--init_concurrency has no effect with --worker_class thread" in threads.notices[0]
