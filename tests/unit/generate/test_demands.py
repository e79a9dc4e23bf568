"""What a platform demands is refused before files are written, and the files keep within its limits."""

from __future__ import annotations

import pytest
import yaml
from known import FULL, PLAIN

from azureml_inference_server_http.generate import demands, rendering
from azureml_inference_server_http.generate.options import UsageError
from azureml_inference_server_http.generate.sizing import Measured, sizes


@pytest.mark.parametrize("name", ["ab", "a" * 33])
def test_names_of_endpoints(name: str) -> None:
    with pytest.raises(UsageError, match="3 to 32: give another with --name"):
        demands.check(["docker", "azureml"], PLAIN._replace(name=name))
    demands.check(["docker", "kubernetes"], PLAIN._replace(name=name))
    for allowed in ("abc", "a" * 32):
        demands.check(["azureml"], PLAIN._replace(name=allowed))


def test_azure_uploads_one_folder_with_its_dockerfile() -> None:
    outside = PLAIN._replace(app_from_out="../flowers", out_from_app="../deploy")
    with pytest.raises(UsageError, match="--out is not in /home/ada/flowers"):
        demands.check(["azureml"], outside)
    demands.check(["docker"], outside)
    demands.check(["azureml"], PLAIN._replace(out_from_app="..deploy"))


def test_the_port_of_kserve() -> None:
    with pytest.raises(UsageError, match="--health_port 8080"):
        demands.check(["kserve"], FULL._replace(health_port=8080))
    demands.check(["kserve", "kubernetes"], FULL)


def test_builders_without_buildkit_can_read_the_dockerfile() -> None:
    """Azure ML builds images with one."""
    for facts in (PLAIN, FULL):
        lines = rendering.files("docker", facts)["Dockerfile"].splitlines()
        assert [line for line in lines if "--mount" in line and not line.startswith("#")] == []


def test_a_slow_start_is_no_failed_rollout() -> None:
    slow = PLAIN._replace(sizes=sizes(Measured(120, 64, 0), 1, False, None, 1024))
    for facts in (PLAIN, slow):
        spec = yaml.safe_load(rendering.files("kubernetes", facts)["kubernetes/deployment.yaml"])["spec"]
        probe = spec["template"]["spec"]["containers"][0]["startupProbe"]
        # Kubernetes' own limit is 600 s.
        assert spec["progressDeadlineSeconds"] >= max(600, probe["periodSeconds"] * probe["failureThreshold"] + 300)


def test_systemd_gives_a_slow_script_up_too() -> None:
    slow = PLAIN._replace(sizes=sizes(Measured(120, 64, 0), 1, False, None, 1024))
    text = rendering.files("systemd", slow)["flowers.service"]
    values = dict(line.split("=", 1) for line in text.splitlines() if line.startswith(("StartLimit", "RestartSec")))
    longest = int(values["StartLimitBurst"]) * (slow.sizes.start_seconds + int(values["RestartSec"]))
    assert int(values["StartLimitIntervalSec"]) >= longest


def test_the_image_leaves_out_the_generated_files_and_no_folder_of_the_user() -> None:
    ignored = rendering.files("docker", FULL)["Dockerfile.dockerignore"].splitlines()
    assert {"deploy/kubernetes", "deploy/azureml"} <= set(ignored)
    assert not {"kubernetes", "kserve", "azureml"} & set(ignored)
    assert {"kubernetes", "**/.env"} <= set(rendering.files("docker", PLAIN)[".dockerignore"].splitlines())


@pytest.mark.parametrize(("port", "health_port", "is_low"), [(80, None, True), (5001, 81, True), (1024, 5000, False)])
def test_user_1000_may_listen_on_a_low_port(port: int, health_port: int | None, is_low: bool) -> None:
    """The server has no capability that would allow it."""
    known = PLAIN._replace(port=port, health_port=health_port)
    pod = yaml.safe_load(rendering.files("kubernetes", known)["kubernetes/deployment.yaml"])["spec"]["template"]["spec"]
    sysctls = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
    assert pod["securityContext"].get("sysctls", []) == sysctls * is_low
    service = yaml.safe_load(rendering.files("compose", known)["compose.yaml"])["services"]["flowers"]
    assert service.get("sysctls") == ({"net.ipv4.ip_unprivileged_port_start": 0} if is_low else None)
    assert ("--sysctl" in rendering.next_steps("docker", known, ".")) == is_low
    assert ("CAP_NET_BIND_SERVICE" in rendering.files("systemd", known)["flowers.service"]) == is_low


def test_the_address_of_a_model_with_blanks_is_one_that_clients_can_use() -> None:
    text = rendering.files("kserve", FULL._replace(given_model_name="my flowers"))["kserve/inference-service.yaml"]
    assert "Clients call /v2/models/my%20flowers/infer" in text


def test_kubectl_waits_as_long_as_the_start_may_take() -> None:
    """Its own limit is 30 s."""
    assert "--timeout=900s inferenceservice/flowers" in rendering.next_steps("kserve", PLAIN, ".")
