"""Values with characters that have a meaning in the formats reach the server unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from known import FULL, NASTY

from azureml_inference_server_http.generate import rendering
from azureml_inference_server_http.replica import arguments


def document(kind: str, path: str) -> Any:
    return yaml.safe_load(rendering.files(kind, FULL)[path])


def test_dockerfile() -> None:
    text = rendering.files("docker", FULL)["Dockerfile"]
    line = next(line for line in text.splitlines() if "AML_CORS_ORIGINS=" in line)
    value = line.split("=", 1)[1].removesuffix(" \\") if hasattr(str, "removesuffix") else line.split("=", 1)[1][:-2]
    assert value[0] == value[-1] == '"'
    inside, plain, position = value[1:-1], "", 0
    while position < len(inside):
        # In quotes a backslash takes the meaning of these three, and no other escape is needed.
        if inside[position] == "\\":
            position += 1
            assert inside[position] in '\\"$'
        else:
            assert inside[position] not in '"$'
        plain += inside[position]
        position += 1
    assert plain == NASTY


def test_the_command_of_the_image_is_a_list() -> None:
    text = rendering.files("docker", FULL)["Dockerfile"]
    command = next(line for line in text.splitlines() if line.startswith("CMD"))
    assert json.loads(command[4:]) == list(FULL.arguments)


def test_compose() -> None:
    value = document("compose", "compose.yaml")["services"]["flowers"]["environment"]["AML_CORS_ORIGINS"]
    assert value.replace("$$", "\0").count("$") == 0
    assert value.replace("$$", "$") == NASTY


@pytest.mark.parametrize(
    ("kind", "path", "containers"),
    [
        ("kubernetes", "kubernetes/deployment.yaml", ("spec", "template", "spec", "containers")),
        ("kserve", "kserve/serving-runtime.yaml", ("spec", "containers")),
    ],
)
def test_kubernetes(kind: str, path: str, containers: tuple[str, ...]) -> None:
    found = document(kind, path)
    for key in containers:
        found = found[key]
    value = next(each["value"] for each in found[0]["env"] if each["name"] == "AML_CORS_ORIGINS")
    assert "$" not in value.replace("$$", "")
    assert value.replace("$$", "$") == NASTY


def test_azureml() -> None:
    assert document("azureml", "azureml/deployment.yml")["environment_variables"]["AML_CORS_ORIGINS"] == NASTY


def test_unit() -> None:
    text = rendering.files("systemd", FULL)["flowers.service"]
    line = next(line for line in text.splitlines() if "AML_CORS_ORIGINS=" in line)
    value = line.partition('"')[2][:-1].replace("%%", "%").replace('\\"', '"').replace("\\\\", "\\")
    assert value == f"AML_CORS_ORIGINS={NASTY}"


def test_ray() -> None:
    """The arguments are those that the application takes, with their values."""
    args = document("ray", "serve.yaml")["applications"][0]["args"]
    plan = arguments.resolve({**args, "entry_script": __file__}, "/")
    assert plan.variables["AML_CORS_ORIGINS"] == NASTY
    assert plan.variables["WORKER_COUNT"] == "4"
    assert plan.deployment["autoscaling_config"]["max_replicas"] == 10


def test_kubernetes_reads_two_dollars_as_one() -> None:
    assert rendering.in_kubernetes("a$$b $(HOME)") == rendering.quoted("a$$$$b $$(HOME)")
