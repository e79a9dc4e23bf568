"""Public: ``azureml_inference_server_http.ray:build`` serves a scoring script on a Ray cluster (docs/deploy.md).

    serve run --working-dir . azureml_inference_server_http.ray:build entry_script=score.py num_replicas=2

Owns the application that Serve deploys. Each of its replicas starts one ordinary server on loopback
(``replica/server.py``), passes requests to it (``replica/passing.py``), and copies its metrics to Ray's exporter
(``replica/metrics.py``). ``replica/arguments.py`` has what can be set. Needs the extra ``ray``; nothing else in this
package imports Ray.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Callable

try:
    from ray import serve
    from ray.serve.metrics import Gauge
except ImportError as error:
    raise ImportError(f"{error}: pip install 'azureml-inference-server-http[ray]'") from error

from .replica import arguments
from .replica.metrics import start_copying
from .replica.passing import application
from .replica.server import Server

__all__ = ["build"]


class Replica:
    """What Serve calls a replica: one server, for as long as Serve wants it."""

    async def __init__(self, plan: arguments.Plan) -> None:  # type: ignore[misc]
        """Start the server. Returns when the script has been loaded; raises ServerError if it cannot be."""
        self._plan = plan
        environment = {**os.environ, **plan.variables}
        # In a thread, because the event loop belongs to Serve, and init() may take minutes.
        self._server = await asyncio.get_running_loop().run_in_executor(
            None, Server, plan.options, environment, plan.graceful
        )
        if plan.has_metrics:
            start_copying(self._server.metrics, _gauge)

    def __serve_build_asgi_app__(self) -> Callable[..., Any]:
        return application(self._server, self._plan.keep_alive)

    async def check_health(self) -> None:
        """Called by Serve. Workers are the server's own concern: this is about the front."""
        await asyncio.get_running_loop().run_in_executor(None, self._server.check)


def _gauge(name: str, words: str, labels: Sequence[str]) -> Gauge:
    """A gauge of Ray, which gets the names of application, deployment and replica as further labels."""
    return Gauge(name, description=words, tag_keys=tuple(labels))


def build(args: dict[str, Any]) -> serve.Application:
    """The application for these arguments, as ``serve run`` and Serve's configuration files give them. Raises
    ArgumentsError for wrong ones."""
    plan = arguments.resolve(args, os.getcwd())
    # Serve takes a function for a builder of an application, so the class is decorated here.
    deployment = serve.deployment(**plan.deployment)(serve.ingress()(Replica))
    return deployment.bind(plan)
