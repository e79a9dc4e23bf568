"""The kinds of files: names, purpose, and the files of each.

Data only. ``templates/`` has a folder for each kind, with a template for each file.
"""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    """``purpose`` for the help; ``files``: paths below --out, by template."""

    purpose: str
    files: dict[str, str]


KINDS: dict[str, Kind] = {
    "docker": Kind(
        "Dockerfile of an image that the other kinds can run",
        {"docker/Dockerfile": "Dockerfile", "docker/dockerignore": ".dockerignore"},
    ),
    "compose": Kind("compose.yaml for Docker or Podman on one machine", {"compose/compose.yaml": "compose.yaml"}),
    "kubernetes": Kind(
        "Deployment, Service and what belongs to them",
        {
            f"kubernetes/{name}": f"kubernetes/{name}"
            for name in (
                "kustomization.yaml",
                "deployment.yaml",
                "service.yaml",
                "disruption-budget.yaml",
                "autoscaler.yaml",
                "network-policy.yaml",
                "optional/autoscaler-by-queue.yaml",
                "optional/service-monitor.yaml",
            )
        },
    ),
    "systemd": Kind("unit of a service on this machine", {"systemd/service": "{name}.service"}),
    "azureml": Kind(
        "managed online endpoint of Azure Machine Learning",
        {f"azureml/{name}": f"azureml/{name}" for name in ("environment.yml", "endpoint.yml", "deployment.yml")},
    ),
    "kserve": Kind(
        "ServingRuntime and InferenceService",
        {f"kserve/{name}": f"kserve/{name}" for name in ("serving-runtime.yaml", "inference-service.yaml")},
    ),
    "ray": Kind("configuration of Ray Serve", {"ray/serve.yaml": "serve.yaml"}),
}
