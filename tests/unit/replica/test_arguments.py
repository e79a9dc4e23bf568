"""The arguments of the application for Ray Serve, as it gets them: texts from a command line, values from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from azureml_inference_server_http.launch.settings_table import SETTINGS
from azureml_inference_server_http.replica.arguments import ENVIRONMENT, OPTIONS, ArgumentsError, Plan, resolve


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "score.py").write_text("")
    return tmp_path


def plan(folder: Path, **args: Any) -> Plan:
    return resolve({"entry_script": "score.py", **args}, str(folder))


def refusals(folder: Path, **args: Any) -> list[str]:
    with pytest.raises(ArgumentsError) as caught:
        plan(folder, **args)
    return str(caught.value).splitlines()


def test_a_script_alone(folder: Path) -> None:
    found = plan(folder)
    assert found.options == ("--plain", "--host", "127.0.0.1", "--port", "0", "--entry_script", "score.py")
    assert found.deployment["num_replicas"] == 1
    assert found.deployment["max_ongoing_requests"] == 2
    assert found.deployment["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 0}
    assert found.deployment["graceful_shutdown_timeout_s"] == 40


def test_texts_and_values_mean_the_same(folder: Path) -> None:
    texts = plan(
        folder, worker_count="3", error_details="true", num_replicas="2", num_cpus="1.5", worker_preload="true"
    )
    values = plan(folder, worker_count=3, error_details=True, num_replicas=2, num_cpus=1.5, worker_preload=True)
    assert texts == values
    assert values.variables["WORKER_COUNT"] == "3"
    assert values.variables["AZMLINFSRV_ERROR_DETAILS"] == "true"
    assert values.variables["WORKER_PRELOAD"] == "true"
    assert values.deployment["max_ongoing_requests"] == 6


def test_paths_are_options_because_the_server_makes_them_absolute(folder: Path) -> None:
    assert plan(folder, model_dir="model", rest=True).options[-3:] == ("--model_dir", "model", "--rest")


def test_processors_are_shared_by_the_workers(folder: Path) -> None:
    """Ray would tell each worker that it has all processors of the replica."""
    assert plan(folder, worker_count=2, num_cpus=8).variables["OMP_NUM_THREADS"] == "4"
    assert plan(folder, worker_count=4, num_cpus=0.5).variables["OMP_NUM_THREADS"] == "1"
    assert plan(folder, environment={"OMP_NUM_THREADS": "3"}).variables["OMP_NUM_THREADS"] == "3"


def test_autoscaling(folder: Path) -> None:
    assert plan(folder, worker_count=2, worker_threads=8).deployment["max_ongoing_requests"] == 32
    scaling = plan(folder, num_replicas="auto", worker_count=2, max_replicas="4", upscale_delay_s="0.5").deployment
    assert "num_replicas" not in scaling
    assert scaling["autoscaling_config"] == {
        "min_replicas": 1,
        "max_replicas": 4,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 0.5,
    }


@pytest.mark.parametrize(
    ("args", "refusal"),
    [
        ({"worker_cuont": 2}, "there is no argument worker_cuont: did you mean worker_count?"),
        ({"xyz": 2}, "there is no argument xyz"),
        ({"port": 80}, "port cannot be set here: Ray Serve has the port that clients use"),
        ({"reload": "true"}, "reload cannot be set here: it is for development"),
        ({"worker_count": "two"}, "worker_count='two' is not allowed: it must be auto, or a whole number, 1 or more"),
        ({"worker_class": 3}, "worker_class=3 is not allowed: it must be process or thread"),
        (
            {"num_replicas": "many"},
            "num_replicas='many' is not allowed: it must be a whole number of 1 or more",
        ),
        ({"num_gpus": -1}, "num_gpus=-1 is not allowed: it must be a number of 0 or more"),
        (
            {"environment": {"KEY": "sk-1", "N": 1}},
            "environment is not allowed: it must be a mapping of texts to texts",
        ),
        ({"record": "samples"}, "record cannot be set here: the replicas of a machine would write to one folder"),
        ({"entry_script": "scor.py"}, "entry_script='scor.py': there is no such file in"),
        ({"entry_script": ""}, "entry_script is missing: name the scoring script, as in entry_script=score.py"),
        ({"max_replicas": 3}, "max_replicas counts only with num_replicas=auto"),
        ({"app_insights_connection_string": 7}, "app_insights_connection_string=*** is not allowed"),
        ({"worker_env": "secret"}, "worker_env=*** is not allowed"),
        ({"worker_count": "auto"}, "worker_count=auto needs num_cpus of 1 or more, the processors of a replica"),
        ({"worker_count": "auto", "num_cpus": 0.5}, "worker_count=auto needs num_cpus of 1 or more"),
        (
            {"num_replicas": "auto", "min_replicas": 5, "max_replicas": 4},
            "min_replicas=5 is more than max_replicas=4",
        ),
        (
            {"environment": {"KEY": "a", "AZMLINFSRV_RELOAD": "true"}},
            "environment has AZMLINFSRV_RELOAD, which cannot be set here: it is for development",
        ),
        ({"environment": {"WORKER_COUNT": "4.5"}}, "WORKER_COUNT"),
        ({"environment": {"WORKER_COUNT": "auto"}}, "environment has WORKER_COUNT=auto: give worker_count=auto"),
    ],
)
def test_wrong_arguments(folder: Path, args: dict[str, Any], refusal: str) -> None:
    (found,) = refusals(folder, **args)
    assert found.startswith(refusal)


def test_names_that_yaml_takes_for_something_else(folder: Path) -> None:
    with pytest.raises(ArgumentsError, match="there is no argument True: in YAML, quote a name such as on"):
        resolve({"entry_script": "score.py", True: 1}, str(folder))  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("script", "args", "calls"),
    [
        ("async def run(data): ...", {"worker_count": 2, "max_concurrency": 5}, 10),
        ("async def run(data): ...", {}, 100),
        ("def run(data): ...", {"max_batch_size": 8}, 8),
        ("def run(data): ...", {"worker_count": 3}, 3),
    ],
)
def test_a_replica_may_have_twice_what_its_server_works_at(
    folder: Path, script: str, args: dict[str, Any], calls: int
) -> None:
    (folder / "score.py").write_text(script)
    found = plan(folder, num_replicas="auto", **args).deployment
    assert found["max_ongoing_requests"] == 2 * calls
    assert found["autoscaling_config"]["target_ongoing_requests"] == calls


def test_auto_means_the_processors_of_the_replica(folder: Path) -> None:
    found = plan(folder, worker_count="auto", num_cpus=3.5)
    assert found.variables["WORKER_COUNT"] == "3"
    assert found.deployment["max_ongoing_requests"] == 6


def test_settings_among_the_variables_count_for_the_plan_too(folder: Path) -> None:
    found = plan(folder, environment={"WORKER_COUNT": "4", "AZMLINFSRV_GRACEFUL_TIMEOUT": "7"}, graceful_timeout=9)
    assert found.deployment["ray_actor_options"]["num_cpus"] == 4
    assert (found.variables["WORKER_COUNT"], found.variables["AZMLINFSRV_GRACEFUL_TIMEOUT"]) == ("4", "9")
    assert found.graceful == 9


def test_the_configuration_file_of_the_application_counts(folder: Path) -> None:
    """The server reads it, and Serve must give it the time that it says."""
    (folder / "config.json").write_text('{"AZMLINFSRV_GRACEFUL_TIMEOUT": 300}')
    found = plan(folder)
    assert (found.graceful, found.deployment["graceful_shutdown_timeout_s"]) == (300, 310)
    assert plan(folder, graceful_timeout=20).graceful == 20
    (folder / "config.json").write_text('{"AZMLINFSRV_GRACEFUL_TIMEOUT": "soon"}')
    assert "AZMLINFSRV_GRACEFUL_TIMEOUT" in refusals(folder)[0]
    (folder / "config.json").write_text("{")
    assert "config.json is not JSON" in refusals(folder)[0]


def test_all_wrong_arguments_are_told_at_once(folder: Path) -> None:
    assert len(refusals(folder, worker_count=0, portt=1, num_cpus="x")) == 3


@pytest.mark.parametrize("name", ["max_queue", "AZMLINFSRV_MAX_QUEUE", "azmlinfsrv_max_queue"])
def test_a_setting_has_the_names_of_its_option_and_its_variable(folder: Path, name: str) -> None:
    assert plan(folder, **{name: 5}).variables["AZMLINFSRV_MAX_QUEUE"] == "5"
    assert plan(folder, access_control_allow_origins="*") == plan(folder, AML_CORS_ORIGINS="*")
    assert refusals(folder, max_queue=4, AZMLINFSRV_MAX_QUEUE=5) == [
        "AZMLINFSRV_MAX_QUEUE is given twice: it means max_queue"
    ]


def test_no_name_means_two_things() -> None:
    names = {name for setting in SETTINGS for name in (setting.name, (setting.flag or "").lstrip("-"))}
    names |= {(setting.environment or "").lower().replace("azmlinfsrv_", "") for setting in SETTINGS}
    assert names & {*OPTIONS, ENVIRONMENT} == set()
